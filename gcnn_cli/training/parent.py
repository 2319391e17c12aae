"""Training that goes on from other weights: the parent, its part in the recipe, and the networks to start with.

A network that is trained on needs less of everything: a tenth of the learning rate, so that few scans do not undo what
many have taught, and a sixth of the steps. It keeps the parent's shape and input, without which the parent's values
mean nothing.

A committee is trained on member by member, each with batches of its own, and is a committee again. With folds each
fold has one network, and starts from the member of its number: the members are then combined as those of a training
from scratch.
"""

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.evaluation.leakage import training_data
from gcnn_cli.network.architecture import GCNN, NetworkConfig, one_or_each
from gcnn_cli.network.committee import members_of
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.network.weights import TrainedModel, load_model
from gcnn_cli.samples.split import SplitConfig

LEARNING_RATE = 4e-4
STEPS = 200
_VALIDATE_EVERY = 50
_CUBE_PER_PATCH = 1.5  # side of a sample's cube, with room for turning and shifting, where the parent's is unknown


@dataclass(frozen=True)
class InitConfig:
    """How a training goes on from other weights.

    parent: sha256 of their file; empty for a training from scratch
    frozen: number of the first convolutions that stay as they are, their normalizations included
    """

    parent: str = ""
    frozen: int = 0

    def __post_init__(self) -> None:
        if self.frozen < 0 or (self.frozen and not self.parent):
            raise InputError(f"[init] must have frozen ({self.frozen}) >= 0, and 0 without a parent")


@dataclass(frozen=True, eq=False)
class Parent:
    """The weights that a training goes on from."""

    model: TrainedModel

    def sections(self) -> dict[str, dict[str, Any]]:
        """Return the sections of a recipe that follow from the parent, as defaults."""
        return {
            "network": asdict(self.model.network.config),
            "input": asdict(self.model.input),
            "samples": {"spacing_mm": self.model.input.spacing_mm, "side": self._cube_side()},
            "train": {"learning_rate": LEARNING_RATE, "steps": STEPS, "validate_every": _VALIDATE_EVERY},
            "init": {"parent": self.model.sha256},
        }

    def check(self, network: NetworkConfig, spec: InputSpec, init: InitConfig) -> None:
        """Raise UsageError unless a recipe keeps the parent's shape and input, and is a recipe for this parent."""
        config = self.model.network.config
        if network.group != config.group:
            raise UsageError(
                f"these weights have the group {config.group}, and the recipe {network.group}: a network keeps its"
                " group when it is trained on"
            )
        # Dropout has no values of its own, so that it may differ.
        if replace(network, dropout=config.dropout) != config or spec != self.model.input:
            raise UsageError("[network] and [input] must be those of the weights in --init; leave these sections out")
        if init.parent != self.model.sha256:
            raise UsageError(
                f"this recipe goes on from other weights than --init: sha256 {init.parent[:12]}…,"
                f" not {self.model.sha256[:12]}…"
            )
        if init.frozen > len(config.fields):
            raise UsageError(f"[init] frozen is {init.frozen}, and the network has {len(config.fields)} convolutions")

    def starts(self, split: SplitConfig) -> list[GCNN]:
        """Return copies of the networks to train on: every member, or with folds the one of the fold's number."""
        members = members_of(self.model.network)
        chosen = (members[(split.fold - 1) % len(members)],) if split.folds else members
        return [copy.deepcopy(member) for member in chosen]

    def provenance(self, split: SplitConfig) -> dict[str, Any]:
        """Return the parent as the new weights' header names it, with its own data where its header names them.

        With folds they are the data of the one member that is trained on: what it held out, it has not seen.
        """
        known = {
            key: self.model.provenance[key]
            for key in ("training_series", "training_patients", "parent")
            if key in self.model.provenance
        }
        if split.folds and self.members > 1:
            known |= self._data_of_member((split.fold - 1) % self.members)
        return {"name": self.model.name, "sha256": self.model.sha256, "members": self.members, **known}

    def _data_of_member(self, number: int) -> dict[str, list[str]]:
        """Return the series and patients that a committee's member was trained on; nothing if its header lacks them."""
        described = self.model.provenance.get("members", ())
        member = described[number] if number < len(described) else {}
        if "training_patients" not in self.model.provenance or not member.keys() >= {
            "held_out_patients",
            "training_series",
        }:
            return {}
        patients = set(self.model.provenance["training_patients"]) - set(member["held_out_patients"])
        return {"training_series": list(member["training_series"]), "training_patients": sorted(patients)}

    @property
    def members(self) -> int:
        """Number of networks in the weights."""
        return len(members_of(self.model.network))

    @property
    def patients(self) -> set[str] | None:
        """Patients that the parent was trained on, and its own parents; None if its header does not name them."""
        data = training_data(self.model.provenance)
        return None if data is None else data[1]

    def _cube_side(self) -> int | tuple[int, ...]:
        """Return the side of the samples: the parent's, or as much larger than its patch as by default."""
        recipe = self.model.provenance.get("recipe")
        samples = recipe.get("samples") if isinstance(recipe, Mapping) else None
        stated = samples.get("side") if isinstance(samples, Mapping) else None
        sides = self.model.input.sides
        each = stated if isinstance(stated, list) and len(stated) == len(sides) else [stated] * len(sides)
        if all(type(n) is int and n >= side for n, side in zip(each, sides, strict=True)):
            side: int | tuple[int, ...] = one_or_each(list(each))
            return side
        larger: int | tuple[int, ...] = one_or_each([2 * round(_CUBE_PER_PATCH * n / 2) for n in sides])
        return larger


def load_parent(model: str) -> Parent:
    """Load the weights to go on from, by shipped name or path. Raises ModelError as `load_model`."""
    return Parent(load_model(model))
