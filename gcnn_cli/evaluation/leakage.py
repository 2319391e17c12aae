"""Leakage: evaluated scans or patients that the weights were trained on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gcnn_cli.errors import InputError


@dataclass(frozen=True)
class Leakage:
    """Evaluated series and patients in the training data. `known` is False if the weights do not list that data."""

    known: bool
    series: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()

    @property
    def found(self) -> bool:
        """True if anything overlaps."""
        return bool(self.series or self.patients)

    def check(self) -> None:
        """Raise InputError unless nothing is known to overlap."""
        if self.found or not self.known:
            raise InputError(f"--strict: {self}")

    def __str__(self) -> str:
        if not self.known:
            return "leakage not checked: the series and patients of the training data are unknown"
        if not self.found:
            return "no leakage: the weights were not trained on any evaluated series or patient, by name"
        names = (*self.series, *self.patients)
        return (
            f"the training data holds {len(self.series)} of the evaluated series"
            f" and {len(self.patients)} of the patients"
            f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}):"
            " the figures are too high"
        )


def find_leakage(provenance: Mapping[str, Any] | None, series: Iterable[str], patients: Iterable[str]) -> Leakage:
    """Compare by name with `training_series` and `training_patients` of a weights file's provenance.

    Weights that went on from others hold what these have learned, too: their `parent` counts with them. Weights that
    hold the counts alone, or no provenance, cannot be checked.
    """
    data = training_data(provenance or {})
    if data is None:
        return Leakage(known=False)
    seen_series, seen_patients = data
    return Leakage(
        known=True,
        series=tuple(sorted(set(series) & seen_series)),
        patients=tuple(sorted(set(patients) & seen_patients)),
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
