"""Were the evaluated scans, or other scans of their patients, among those that the weights learned from?"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gcnn_cli.errors import InputError


@dataclass(frozen=True)
class Leakage:
    """Evaluated series and patients that training saw. `known` is False where the weights do not say."""

    known: bool
    series: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()

    @property
    def found(self) -> bool:
        """Whether anything overlaps."""
        return bool(self.series or self.patients)

    def check(self) -> None:
        """Raise InputError unless it is known that nothing overlaps."""
        if self.found or not self.known:
            raise InputError(f"--strict: {self}")

    def __str__(self) -> str:
        if not self.known:
            return "leakage not checked: nothing says what the weights were trained on"
        if not self.found:
            return "no evaluated series or patient was trained on, by name"
        return (
            f"{len(self.series)} of the evaluated series and {len(self.patients)} of the patients were trained on"
            f" ({', '.join((*self.series, *self.patients)[:3])}{', ...' if len(self.series) > 3 else ''}):"
            " the figures are too good"
        )


def find_leakage(provenance: Mapping[str, Any] | None, series: Iterable[str], patients: Iterable[str]) -> Leakage:
    """Compare by name with `training_series` and `training_patients` of a weights file's provenance."""
    provenance = provenance or {}
    if "training_series" not in provenance and "training_patients" not in provenance:
        return Leakage(known=False)
    seen_series = set(provenance.get("training_series", ()))
    seen_patients = set(provenance.get("training_patients", ()))
    return Leakage(
        known=True,
        series=tuple(sorted(set(series) & seen_series)),
        patients=tuple(sorted(set(patients) & seen_patients)),
    )
