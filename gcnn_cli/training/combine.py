"""The networks of all folds -> one committee, whose scores are calibrated on out-of-fold patients."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.network.architecture import GCNN
from gcnn_cli.network.committee import Committee
from gcnn_cli.network.contract import Calibration
from gcnn_cli.network.weight_files import DEFAULT_PROPOSALS
from gcnn_cli.network.weights import TrainedModel, load_model
from gcnn_cli.samples.held_out import read_held_out
from gcnn_cli.samples.sample import SampleConfig
from gcnn_cli.training.out_of_fold import calibrate_out_of_fold, score_out_of_fold
from gcnn_cli.training.provenance import NAME_KEYS, names_of

Names = dict[str, list[str]]


@dataclass(frozen=True, eq=False)
class FoldWeights:
    """The network of one fold, and the names of its training data (`provenance.NAME_KEYS`)."""

    model: TrainedModel
    names: Names

    @property
    def recipe(self) -> dict[str, Any]:
        """Recipe of the training, from the header."""
        return dict(self.model.provenance["recipe"])

    @property
    def samples(self) -> SampleConfig:
        """Settings of the samples. Raises InputError for a recipe of another version of gcnn."""
        try:
            return SampleConfig(**self.recipe["samples"])
        except (KeyError, TypeError):
            raise InputError(f"{self.model.name}: its recipe is of another version of gcnn; train it again") from None


def read_fold(path: Path) -> FoldWeights:
    """Read weights from `gcnn train --fold`.

    Raises InputError for other weights, or if the names of the training data are unknown; UsageError for a committee.
    """
    model = load_model(str(path))
    recipe = model.provenance.get("recipe")
    if not isinstance(recipe, Mapping) or not recipe.get("split", {}).get("folds"):
        raise InputError(f"{path}: not the weights of a fold; train them with gcnn train --fold")
    if not isinstance(model.network, GCNN):
        raise UsageError(f"{path}: already a committee; give the weights of its folds")
    return FoldWeights(model, names_of(model, path))


def combine_folds(
    members: Sequence[FoldWeights],
    folders: list[Path],
    name: str,
    *,
    average_over: str,
    device: torch.device,
    proposals: str = DEFAULT_PROPOSALS,
    cache: Path | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> tuple[TrainedModel, Names]:
    """Return the committee of one network for each fold, and the names of all training data.

    folders:   data that the members were trained on; each member alone scores the patients that it held out
    proposals: network that proposes candidates: name of shipped weights, or path of a weights file
    cache:     cache folder of the trainings

    Raises InputError if the members are not the folds of one split, or if the data lack a labeled scan of a fold.
    """
    Calibration(average_over=average_over)  # raises for an unknown group
    check_folds(members)
    notify("reading the data")
    models = [member.model for member in members]
    samples = members[0].samples
    held_out = read_held_out(folders, samples, [m.names["held_out_patients"] for m in members], cache)
    for model, held in zip(models, held_out, strict=True):
        if not held.scans:
            raise InputError(f"{model.name}: the data hold no labeled scan of its held-out patients")
    scored = score_out_of_fold(
        models, held_out, average_over=average_over, device=device, proposals=proposals, notify=notify
    )
    calibration, basis = calibrate_out_of_fold(scored, average_over)
    network = Committee([model.network for model in models if isinstance(model.network, GCNN)])
    names = {key: sorted({n for member in members for n in member.names[key]}) for key in sorted(NAME_KEYS)}
    names["held_out_patients"] = []
    provenance = _provenance(members, names, basis)
    return TrainedModel(name, network, models[0].input, calibration, provenance), names


def check_folds(members: Sequence[FoldWeights]) -> None:
    """Raise InputError unless there is one network for each fold of one split."""
    first = members[0]
    for member in members:
        if _shared(member.recipe) != _shared(first.recipe) or member.model.input != first.model.input:
            raise InputError(f"{member.model.name} and {first.model.name} were trained with different recipes")
    folds = [member.recipe["split"]["fold"] for member in members]
    if sorted(folds) != list(range(1, first.recipe["split"]["folds"] + 1)):
        given = ", ".join(map(str, folds))
        raise InputError(
            f"a committee needs one network for each of the {first.recipe['split']['folds']} folds, got folds {given}"
        )
    for member in members:
        held = set(member.names["held_out_patients"])
        if held & set(member.names["training_patients"]):
            raise InputError(f"{member.model.name}: some held-out patients are also training patients")
        for other in members:
            if other is not member and held & set(other.names["held_out_patients"]):
                raise InputError(f"{member.model.name} and {other.model.name} hold out the same patients")


def _shared(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe without the fold and the seed, which differ between folds."""
    return {**recipe, "split": {**recipe["split"], "fold": 0}, "train": {**recipe["train"], "seed": 0}}


def _provenance(members: Sequence[FoldWeights], names: Names, basis: dict[str, float]) -> dict[str, object]:
    """Return the provenance of the committee. It names the data only if every member's header does."""
    first = members[0].model.provenance
    named = all(member.model.provenance.keys() >= NAME_KEYS for member in members)
    return {
        "tool": first["tool"],
        "torch": first["torch"],
        "recipe": json.loads(json.dumps(_shared(members[0].recipe))),
        **({"parent": first["parent"]} if "parent" in first else {}),  # one for all, as the recipes are
        **(names if named else {}),
        "counts": {name: len(values) for name, values in names.items()},
        "out_of_fold": basis,
        "validation": {"validation": {name: basis[name] for name in ("cpm", "sensitivity_at_1")}},
        "members": [
            {
                "sha256": member.model.sha256,
                "fold": member.recipe["split"]["fold"],
                "seed": member.recipe["train"]["seed"],
                **{key: member.model.provenance.get(key) for key in ("samples", "validation", "hours")},
                **({"held_out_patients": member.names["held_out_patients"]} if named else {}),
            }
            for member in members
        ],
    }
