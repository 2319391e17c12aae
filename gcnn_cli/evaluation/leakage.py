"""Leakage: evaluated scans or patients that the weights were trained on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gcnn_cli.errors import InputError

WEIGHTS, PROPOSALS = "the weights", "the proposal network"


@dataclass(frozen=True)
class Leakage:
    """Evaluated series and patients in the training data.

    unknown: networks whose training data are unknown, in words; what is found is then only a part
    """

    unknown: tuple[str, ...] = ()
    series: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """True if all training data are known."""
        return not self.unknown

    @property
    def found(self) -> bool:
        """True if anything overlaps."""
        return bool(self.series or self.patients)

    def check(self) -> None:
        """Raise InputError unless nothing is known to overlap."""
        if self.found or not self.known:
            raise InputError(f"--strict: {self}")

    def __str__(self) -> str:
        if self.found:
            names = (*self.series, *self.patients)
            return (
                f"the training data holds {len(self.series)} of the evaluated series"
                f" and {len(self.patients)} of the patients"
                f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}):"
                " the figures are too high"
            )
        if self.unknown:
            whose = "" if WEIGHTS in self.unknown else f" of {PROPOSALS}"
            return f"leakage not checked: the series and patients of the training data{whose} are unknown"
        return "no leakage: the weights were not trained on any evaluated series or patient, by name"


def find_leakage(
    provenance: Mapping[str, Any] | None,
    series: Iterable[str],
    patients: Iterable[str],
    *,
    proposals: Mapping[str, Any] | None = None,
) -> Leakage:
    """Compare by name with `training_series` and `training_patients` of a weights file's provenance.

    proposals: provenance of the network that proposed the candidates; None if there is none to check

    Weights that went on from others hold what these have learned, too: their `parent` counts with them. Weights that
    hold the counts alone, or no provenance, cannot be checked.
    """
    sources = {WEIGHTS: training_data(provenance or {})}
    if proposals is not None:
        sources[PROPOSALS] = training_data(proposals)
    found = [data for data in sources.values() if data is not None]
    return Leakage(
        tuple(name for name, data in sources.items() if data is None),
        tuple(sorted(set(series) & set().union(*(data[0] for data in found)))),
        tuple(sorted(set(patients) & set().union(*(data[1] for data in found)))),
    )


def training_data(provenance: Mapping[str, Any]) -> tuple[set[str], set[str]] | None:
    """Return the series and patients of the training and of the parents' before it; None if one is unknown."""
    if "training_series" not in provenance and "training_patients" not in provenance:
        return None
    series, patients = set(provenance.get("training_series", ())), set(provenance.get("training_patients", ()))
    if "parent" not in provenance:
        return series, patients
    inherited = training_data(provenance["parent"])
    return None if inherited is None else (series | inherited[0], patients | inherited[1])
