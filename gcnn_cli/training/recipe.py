"""All settings of a training run in one value, read from TOML and written to it.

    [network]  group, fields, ...     [train]  steps, seed, learning_rate, ...
    [input]    spacing_mm, side, ...  [augment], [samples], [split], [init]

Keys that a file does not set keep their defaults. An unknown key is an error. Spacings and sides are one number, or
one for each axis, [z, y, x]. The name of one of the article's networks (`article`) stands for a file. A training that
goes on from other weights (`parent`) has other defaults: theirs.
"""

import math
import tomllib
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import tomli_w

from gcnn_cli.errors import InputError, ModelError, UsageError
from gcnn_cli.network.architecture import FIELDS, NetworkConfig, one_or_each, stated
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.network.invariance import check_symmetric_voxels
from gcnn_cli.samples.sample import SampleConfig
from gcnn_cli.samples.split import SplitConfig
from gcnn_cli.symmetry.groups import make_group
from gcnn_cli.symmetry.shapes import check_turns
from gcnn_cli.training.article import ARTICLE_NETWORKS, article_sections
from gcnn_cli.training.augment import AugmentConfig
from gcnn_cli.training.loop import TrainConfig
from gcnn_cli.training.parent import InitConfig, Parent

_PER_AXIS = {"spacing_mm", "side", "kernel"}
_NAMES = {float: "number", int: "whole number", str: "text", tuple: "list", bool: "true or false"}
_SECTIONS: dict[str, type] = {
    "network": NetworkConfig,
    "input": InputSpec,
    "augment": AugmentConfig,
    "train": TrainConfig,
    "samples": SampleConfig,
    "split": SplitConfig,
    "init": InitConfig,
}


@dataclass(frozen=True)
class Recipe:
    """Settings of sampling, splitting and training.

    subset: number of samples to train on, 0 for all
    init:   how the training goes on from other weights; the default starts anew
    """

    train: TrainConfig = field(default_factory=TrainConfig)
    samples: SampleConfig = field(default_factory=SampleConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    subset: int = 0
    init: InitConfig = field(default_factory=InitConfig)


def read_recipe(
    path: Path | None, changes: dict[str, dict[str, Any]] | None = None, parent: Parent | None = None
) -> Recipe:
    """Read a recipe from a file and apply changes to it, section by section; None in a change changes nothing.

    path:   of a TOML file, or the name of one of the article's networks
    parent: weights that the training goes on from; they give the defaults (`Parent.sections`)

    If nothing sets the network's fields, they follow from its group. Raises InputError naming the file and the key,
    UsageError for an unknown group, and for a recipe that does not fit the parent or its absence.
    """
    sections: dict[str, dict[str, Any]] = parent.sections() if parent else {}
    for changed in (_sections_of(path) if path else {}, changes or {}):
        for name, values in changed.items():
            given = {key: value for key, value in values.items() if value is not None}
            sections[name] = {**sections.get(name, {}), **given}
    group = _as(str, sections.get("network", {}).get("group", NetworkConfig().group), f"{path}: group in [network]")
    if group not in FIELDS:
        raise UsageError(f"unknown group {group!r}: choose one of {', '.join(FIELDS)}")
    subset = _as(int, sections.get("samples", {}).pop("subset", 0), f"{path}: subset in [samples]")
    if subset < 0:
        raise InputError(f"{path}: subset in [samples] must not be negative, got {subset}")
    if "side" not in sections.get("network", {}) and "side" in sections.get("input", {}):
        sections["network"] = {**sections.get("network", {}), "side": sections["input"]["side"]}
    made = {name: _make(name, sections.get(name, {}), path) for name in _SECTIONS}
    network, given = made["network"], sections.get("network", {})
    if "fields" not in given:
        network = replace(network, fields=FIELDS[network.group])
    if network.sides != made["input"].sides:
        raise InputError(f"{path}: side is {network.side} in [network] and {made['input'].side} in [input]")
    if made["samples"].spacing_zyx != made["input"].spacing_zyx:
        spacings = " and ".join(
            f"{one_or_each([f'{mm:g}' for mm in made[name].spacing_zyx])} in [{name}]" for name in ("samples", "input")
        )
        raise InputError(f"{path}: spacing_mm is {spacings}".replace("'", ""))
    if any(patch > cube for patch, cube in zip(made["input"].sides, made["samples"].sides, strict=True)):
        patch, cube = (one_or_each(list(made[name].sides)) for name in ("input", "samples"))
        raise InputError(f"{path}: side is {patch} in [input] and {cube} in [samples]: a patch is cut from a sample")
    check_symmetric_voxels(network, made["input"])
    _check_turns(made["augment"], made["input"], path)
    train = replace(made["train"], network=network, input=made["input"], augment=made["augment"])
    recipe = Recipe(train, made["samples"], made["split"], subset, made["init"])
    if parent:
        parent.check(network, train.input, recipe.init)
    elif recipe.init != InitConfig():
        raise UsageError(f"{path}: this recipe goes on from other weights; name them with --init")
    return recipe


def recipe_text(recipe: Recipe) -> str:
    """Return the recipe as TOML, which `read_recipe` reads back to an equal one."""
    train = asdict(recipe.train)
    sections = {name: train.pop(name) for name in ("network", "input", "augment")}
    sections |= {"train": train, "samples": {**asdict(recipe.samples), "subset": recipe.subset}}
    sections["split"] = asdict(recipe.split)
    if recipe.init != InitConfig():
        sections["init"] = asdict(recipe.init)
    return tomli_w.dumps(sections)


def stated_settings(train: TrainConfig) -> dict[str, Any]:
    """Return settings as plain data that do not change when the network's configuration gets new keys (`stated`)."""
    return {**asdict(train), "network": stated(train.network)}


def _check_turns(augment: AugmentConfig, spec: InputSpec, path: Path | None) -> None:
    """Raise InputError where patches would be turned into others, of another shape or stretched."""
    for lengths, what in ((spec.sides, "the patch"), (spec.spacing_zyx, "the spacing in mm")):
        try:
            check_turns(make_group(augment.turn_group), lengths, what)
        except ModelError as error:
            raise InputError(f"{path}: turn_group in [augment]: {error}; choose D4h or trivial") from None


def _sections_of(path: Path) -> dict[str, dict[str, Any]]:
    return article_sections(path.name) if str(path) in ARTICLE_NETWORKS and not path.exists() else _read(path)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        sections = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError among them
        raise InputError(f"{path}: not TOML: {' '.join(str(error).split())[:120]}") from None
    for name, values in sections.items():
        if name not in _SECTIONS or not isinstance(values, dict):
            raise InputError(f"{path}: unknown section [{name}]; choose from {', '.join(_SECTIONS)}")
    return sections


def _make(name: str, values: dict[str, Any], path: Path | None) -> Any:
    """Make the dataclass of a section. Nested configs have sections of their own."""
    kind = _SECTIONS[name]
    defaults = {f.name: getattr(kind(), f.name) for f in fields(kind) if f.name not in _SECTIONS}
    checked = {}
    for key, value in values.items():
        if key not in defaults:
            raise InputError(f"{path}: unknown key {key} in [{name}]; choose from {', '.join(defaults)}")
        kind_of, where = type(defaults[key]), f"{path}: {key} in [{name}]"
        if key in _PER_AXIS and isinstance(value, (list, tuple)):
            checked[key] = tuple(_as(kind_of, each, where) for each in value)
        else:
            checked[key] = _as(kind_of, value, where)
    for item in checked.get("hold_out", ()):
        _as(str, item, f"{path}: a patient of hold_out in [{name}]")
    try:
        return kind(**checked)
    except InputError as error:
        raise error.located(path) if path else error from None


def _as(kind: type, value: Any, where: str) -> Any:
    if kind is float and type(value) is int and abs(value) < 2**63:
        return float(value)
    if kind is tuple and isinstance(value, (list, tuple)):
        return tuple(value)
    if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
        raise InputError(f"{where} is {str(value)[:80]!r}, not a {_NAMES.get(kind, kind.__name__)}")
    return value
