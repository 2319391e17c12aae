"""The networks of all folds -> one committee, whose scores are calibrated on out-of-fold patients.

Another network may join them: one of another recipe, whose mistakes are others'. It has no fold. Each fold's network is
then measured together with it, at the other's share, on what neither has seen.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.evaluation.leakage import training_data
from gcnn_cli.network.architecture import GCNN
from gcnn_cli.network.committee import Committee
from gcnn_cli.network.contract import Calibration
from gcnn_cli.network.weight_files import DEFAULT_PROPOSALS
from gcnn_cli.network.weights import TrainedModel, find_weights, load_model
from gcnn_cli.samples.held_out import HeldOut, read_held_out
from gcnn_cli.samples.sample import SampleConfig
from gcnn_cli.training.out_of_fold import calibrate_out_of_fold, score_out_of_fold
from gcnn_cli.training.provenance import NAME_KEYS, names_of

log = logging.getLogger("gcnn")

OTHER_KEYS = ("training_patients", "training_series")

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

    def unseen_by_parent(self, held: HeldOut) -> HeldOut:
        """Return the part of the fold's data that the weights which the network went on from were not trained on.

        Warns if it is unknown what they were trained on.
        """
        parent = self.model.provenance.get("parent")
        if not parent:
            return held
        data = training_data(parent)
        if data is None:
            log.warning(
                "%s: nothing says which patients its parent, %s, was trained on; if these are among them, the figures"
                " are too high",
                self.model.name,
                parent.get("name"),
            )
            return held
        return held.unseen_by(data[1], data[0])

    @property
    def samples(self) -> SampleConfig:
        """Settings of the samples. Raises InputError for a recipe of another version of gcnn."""
        try:
            return SampleConfig(**self.recipe["samples"])
        except (KeyError, TypeError):
            raise InputError(f"{self.model.name}: its recipe is of another version of gcnn; train it again") from None


@dataclass(frozen=True, eq=False)
class OtherWeights:
    """A network of another recipe that joins the folds' networks.

    share: its part in the mean; the folds' networks have equal parts of the rest
    names: names of its training data, its parents' among them

    Raises UsageError for a committee or an impossible share.
    """

    model: TrainedModel
    share: float
    names: Names

    def __post_init__(self) -> None:
        if not isinstance(self.model.network, GCNN):
            raise UsageError(f"{self.model.name}: a committee; give the weights of a single network")
        if not 0 < self.share < 1:
            raise UsageError(f"the share of {self.model.name} must lie between 0 and 1, not at {self.share:g}")

    def paired(self, member: TrainedModel) -> TrainedModel:
        """Return a fold's network and this one as they count in the committee, at this one's share.

        Raises InputError if their shapes or inputs differ.
        """
        if member.input != self.model.input or member.network.config != self.model.network.config:
            raise InputError(f"{self.model.name} and {member.name} differ in shape or input: they make no committee")
        return replace(member, network=committee_of([member], self))

    def description(self, *, named: bool) -> dict[str, Any]:
        """Return what the committee's header says of this network."""
        about = {"name": self.model.name, "sha256": self.model.sha256, "share": self.share}
        return {**about, **({key: self.names[key] for key in OTHER_KEYS} if named else {})}

    def unseen(self, held: HeldOut) -> HeldOut:
        """Return the part of a fold's data that this network was not trained on."""
        return held.unseen_by(self.names["training_patients"], self.names["training_series"])


def read_other(model: str, share: float) -> OtherWeights:
    """Read a network that joins the folds', by shipped name or path.

    Raises as `OtherWeights`, and InputError if the names of its training data are unknown.
    """
    loaded = load_model(model)
    names = names_of(loaded, find_weights(model))
    if parent := loaded.provenance.get("parent"):
        data = training_data(parent)
        if data is None:
            raise InputError(f"{loaded.name}: nothing says which patients its parent was trained on")
        names |= {key: sorted({*names[key], *seen}) for key, seen in zip(OTHER_KEYS, reversed(data), strict=True)}
    return OtherWeights(loaded, share, names)


def committee_of(members: Sequence[TrainedModel], other: OtherWeights | None = None) -> Committee:
    """Return the members as one network, with another one last: the first of a committee screens the candidates."""
    share = other.share if other else 0.0
    models = [*members, *([other.model] if other else [])]
    networks = [model.network for model in models if isinstance(model.network, GCNN)]
    shares = [(1 - share) / len(members)] * len(members) + [share] * (other is not None)
    return Committee(networks, shares)


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
    other: OtherWeights | None = None,
    proposals: str = DEFAULT_PROPOSALS,
    cache: Path | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> tuple[TrainedModel, Names]:
    """Return the committee of one network for each fold, and the names of all training data.

    folders:   data that the members were trained on; each member alone scores the patients that it held out
    other:     network that joins them; each member then scores with it what neither was trained on
    proposals: network that proposes candidates: name of shipped weights, or path of a weights file
    cache:     cache folder of the trainings

    Raises InputError if the members are not the folds of one split, if the data lack a labeled scan of a fold, or if
    the other network has another shape or has seen every labeled scan.
    """
    Calibration(average_over=average_over)  # raises for an unknown group
    common = check_folds(members)
    models = [member.model for member in members]
    measured = [other.paired(model) for model in models] if other else models
    notify("reading the data")
    samples = members[0].samples
    held_out = read_held_out(folders, samples, [set(m.names["held_out_patients"]) - common for m in members], cache)
    for model, held in zip(models, held_out, strict=True):
        if not held.scans:
            raise InputError(f"{model.name}: the data hold no labeled scan of its held-out patients")
    held_out = [member.unseen_by_parent(held) for member, held in zip(members, held_out, strict=True)]
    _check_scans_left(held_out, "the weights that the folds went on from were")
    if other:
        held_out = [other.unseen(held) for held in held_out]
        _check_scans_left(held_out, f"{other.model.name} was")
    scored = score_out_of_fold(
        measured, held_out, average_over=average_over, device=device, proposals=proposals, notify=notify
    )
    calibration, basis = calibrate_out_of_fold(scored, average_over)
    sources = [*(member.names for member in members), *([other.names] if other else [])]
    names = {key: sorted({n for source in sources for n in source[key]}) for key in sorted(NAME_KEYS)}
    names["held_out_patients"] = sorted(common)
    provenance = _provenance(members, other, names, basis)
    return TrainedModel(name, committee_of(models, other), models[0].input, calibration, provenance), names


def _check_scans_left(held_out: Sequence[HeldOut], who: str) -> None:
    if not any(held.scans for held in held_out):
        raise InputError(f"{who} trained on every labeled scan of the data: none is left to count")


def check_folds(members: Sequence[FoldWeights]) -> set[str]:
    """Return the patients whom all folds hold out: those of the recipe's `hold_out`.

    Raises InputError unless there is one network for each fold of one split.
    """
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
    common = set.intersection(*(set(member.names["held_out_patients"]) for member in members))
    named = first.recipe["split"]["hold_out"]  # the number alone in a header without names
    if len(common) > (named if isinstance(named, int) else len(named)):
        raise InputError("all folds hold out the same patients, and not by the recipe's hold_out")
    for member in members:
        held = set(member.names["held_out_patients"])
        if held & set(member.names["training_patients"]):
            raise InputError(f"{member.model.name}: some held-out patients are also training patients")
        for other in members:
            if other is not member and held & set(other.names["held_out_patients"]) - common:
                raise InputError(f"{member.model.name} and {other.model.name} hold out the same patients")
    return common


def _parent_of(members: Sequence[FoldWeights]) -> dict[str, Any]:
    """Return the parent, one for all as the recipes are, with the data of every member that was trained on."""
    parents = [member.model.provenance["parent"] for member in members]
    keys = [key for key in OTHER_KEYS if all(key in parent for parent in parents)]
    return {**parents[0], **{key: sorted({name for parent in parents for name in parent[key]}) for key in keys}}


def _shared(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe without the fold and the seed, which differ between folds."""
    return {**recipe, "split": {**recipe["split"], "fold": 0}, "train": {**recipe["train"], "seed": 0}}


def _provenance(
    members: Sequence[FoldWeights], other: OtherWeights | None, names: Names, basis: dict[str, float]
) -> dict[str, object]:
    """Return the provenance of the committee. It names the data only if every network's header does."""
    first = members[0].model.provenance
    models = [*(member.model for member in members), *([other.model] if other else [])]
    named = all(model.provenance.keys() >= NAME_KEYS for model in models)
    candidates = {str(member.model.provenance.get("candidate_weights", "")) for member in members}
    return {
        "tool": first["tool"],
        "torch": first["torch"],
        "recipe": json.loads(json.dumps(_shared(members[0].recipe))),
        **({"parent": _parent_of(members)} if "parent" in first else {}),
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
                **({key: member.names[key] for key in ("held_out_patients", "training_series")} if named else {}),
            }
            for member in members
        ],
        **({"other": other.description(named=named)} if other else {}),
        **({"candidate_weights": candidates.pop()} if len(candidates) == 1 and "" not in candidates else {}),
    }
