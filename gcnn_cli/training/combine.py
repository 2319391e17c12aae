"""Networks of all folds -> one committee, with its scores calibrated out of fold."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.network.architecture import GCNN
from gcnn_cli.network.committee import Committee
from gcnn_cli.network.contract import Calibration
from gcnn_cli.network.weights import TrainedModel
from gcnn_cli.samples.held_out import read_held_out
from gcnn_cli.samples.samples import SampleConfig
from gcnn_cli.samples.split import SplitConfig
from gcnn_cli.training.out_of_fold import OutOfFold, calibrate_out_of_fold, score_out_of_fold


def combine_folds(
    members: Sequence[TrainedModel],
    folders: list[Path],
    name: str,
    *,
    average_over: str,
    device: torch.device,
    cache: Path | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> tuple[TrainedModel, OutOfFold]:
    """Return the committee of one network for each fold, and what its calibration was made from.

    folders: the data that the members were trained on; what each had held out is scored by it alone
    cache:   folder that their training kept what it found in

    Raises InputError where the members are not the folds of one split or the data do not hold their patients.
    """
    Calibration(average_over=average_over)  # raises for an unknown group
    splits = check_folds(members)
    notify("reading the data")
    samples = SampleConfig(**members[0].provenance["recipe"]["samples"])
    held_out = read_held_out(folders, samples, splits, cache)
    for member, held in zip(members, held_out, strict=True):
        present = {nodule.sample.patient for nodule in held.nodules} | {scan.patient for scan in held.scans}
        if present & set(member.provenance["training_patients"]):
            raise InputError(f"{member.name}: was trained on patients whom its fold holds out in these data")
        if not held.scans:
            raise InputError(f"{member.name}: these data hold no labeled scan of its held-out patients")
    scored = score_out_of_fold(members, held_out, average_over=average_over, device=device, notify=notify)
    calibration, basis = calibrate_out_of_fold(scored, average_over)
    network = Committee([_single(member) for member in members])
    return TrainedModel(name, network, members[0].input, calibration, _provenance(members, basis)), scored


def check_folds(members: Sequence[TrainedModel]) -> list[SplitConfig]:
    """Return the split of each member. Raises InputError where they are not one network of each fold of a split."""
    recipes = [_recipe(member) for member in members]
    splits = [SplitConfig(**{**recipe["split"], "hold_out": tuple(recipe["split"]["hold_out"])}) for recipe in recipes]
    for member, recipe in zip(members, recipes, strict=True):
        if _without_fold(recipe) != _without_fold(recipes[0]) or member.input != members[0].input:
            raise InputError(f"{member.name} and {members[0].name} were not trained by one recipe")
    wanted = list(range(1, splits[0].folds + 1)) if splits else []
    if not wanted or sorted(split.fold for split in splits) != wanted:
        given = ", ".join(str(split.fold) for split in splits)
        raise InputError(f"a committee needs one network of each of the {len(wanted)} folds, got folds {given}")
    owners: dict[str, str] = {}
    for member in members:
        for patient in member.provenance["held_out_patients"]:
            if owners.setdefault(patient, member.name) != member.name:
                raise InputError(f"{owners[patient]} and {member.name} hold out the same patients")
    return splits


def _recipe(member: TrainedModel) -> dict[str, Any]:
    try:
        recipe: dict[str, Any] = json.loads(json.dumps(member.provenance["recipe"]))
        if recipe["split"]["folds"]:
            return recipe
    except (KeyError, TypeError):
        pass
    raise InputError(f"{member.name}: was not trained on a fold (gcnn train --fold)")


def _without_fold(recipe: dict[str, Any]) -> dict[str, Any]:
    return {**recipe, "split": {**recipe["split"], "fold": 0}, "train": {**recipe["train"], "seed": 0}}


def _single(member: TrainedModel) -> GCNN:
    if not isinstance(member.network, GCNN):
        raise UsageError(f"{member.name}: is a committee already")
    return member.network


def _provenance(members: Sequence[TrainedModel], basis: dict[str, float]) -> dict[str, object]:
    """Where all members come from, what they share said once."""
    patients = sorted({p for member in members for p in member.provenance["training_patients"]})
    series = sorted({s for member in members for s in member.provenance["training_series"]})
    shared = members[0].provenance
    return {
        "tool": shared["tool"],
        "torch": shared["torch"],
        "recipe": _without_fold(_recipe(members[0])),
        "labelled_series": list(shared["labelled_series"]),
        "training_series": series,
        "training_patients": patients,
        "held_out_patients": [],
        "out_of_fold": basis,
        "validation": {"validation": {name: basis[name] for name in ("cpm", "sensitivity_at_1")}},
        "members": [
            {
                "sha256": member.sha256,
                "fold": _recipe(member)["split"]["fold"],
                "seed": _recipe(member)["train"]["seed"],
                "samples": member.provenance["samples"],
                "held_out_patients": list(member.provenance["held_out_patients"]),
                "validation": member.provenance["validation"],
                "hours": member.provenance["hours"],
            }
            for member in members
        ],
    }
