"""The change of a nodule's volume, with the uncertainty of both measurements.

    growth rate g = ln(V2 / V1) / days       volume doubling time = ln 2 / g  (negative: halving time)

The error of ln V has two independent parts. One is the patient's and the scanner's, from nodules of a screening trial
that were measured again after three months: Marchiano et al. 2009 (Radiology 251:919) found 95 % of the differences
within 27 %, a standard deviation of 0.097 for one measurement. The other is that of this measurement:
`tests/benchmarks/repeatability.py` scanned 90 real nodules again by simulation, five times in slices of 1 and of
2.5 mm, and the table below is what it printed. A few nodules at the wall and on vessels, whose edge falls now here and
now there, make up most of it: half of the nodules have about half of this error. Above 15 mm the cut-outs are too
small to be scanned again, and the last value is held.

A nodule has changed if the 95 % interval of ln(V2 / V1) leaves zero. The doubling time's interval is that of g: where
g may be zero, the time has no upper bound.
"""

import math
from dataclasses import dataclass

import numpy as np

_Z = 1.96
_PATIENT_SD = 0.27 / _Z / math.sqrt(2)
# SD of ln V by diameter, in slices of 1 and of 2.5 mm; between them it is interpolated, beyond them held.
_DIAMETERS_MM = (5.5, 7.0, 9.0, 12.5)
_SLICES_MM = (1.0, 2.5)
_MEASURED_SD = ((0.101, 0.147, 0.119, 0.182), (0.165, 0.179, 0.137, 0.155))


@dataclass(frozen=True)
class Growth:
    """The change of one nodule between two dates.

    log_ratio: ln(V2 / V1)
    sd:        its standard deviation by both measurements' errors
    days:      between the scans; None if unknown
    """

    log_ratio: float
    sd: float
    days: float | None

    @property
    def percent(self) -> float:
        """Change of the volume in percent of the first."""
        return _percent(self.log_ratio)

    @property
    def percent_interval(self) -> tuple[float, float]:
        """95 % interval of the change in percent."""
        return _percent(self.log_ratio - _Z * self.sd), _percent(self.log_ratio + _Z * self.sd)

    @property
    def is_change(self) -> bool:
        """True if the change is larger than the errors explain."""
        return abs(self.log_ratio) > _Z * self.sd

    @property
    def doubling_days(self) -> float | None:
        """Volume doubling time in days, negative for a shrinking nodule; None without dates or without a change."""
        if self.days is None or self.log_ratio == 0:
            return None
        return self.days * math.log(2) / self.log_ratio

    @property
    def doubling_interval(self) -> tuple[float, float | None] | None:
        """95 % interval of the doubling time, its shorter bound first; None as a bound where the volume may be equal.

        None without dates.
        """
        if self.days is None:
            return None
        sign = math.copysign(1.0, self.log_ratio)
        fastest, slowest = abs(self.log_ratio) + _Z * self.sd, abs(self.log_ratio) - _Z * self.sd
        time = self.days * math.log(2)
        return sign * time / fastest, sign * time / slowest if slowest > 0 else None


def volume_sd(diameter_mm: float, slice_mm: float) -> float:
    """Return the standard deviation of ln V of one measurement. slice_mm: the scan's largest voxel spacing"""
    by_slice = [float(np.interp(diameter_mm, _DIAMETERS_MM, row)) for row in _MEASURED_SD]
    own = float(np.interp(slice_mm, _SLICES_MM, by_slice))
    return math.hypot(_PATIENT_SD, own)


def growth(
    prior_mm3: float, prior_slice_mm: float, current_mm3: float, current_slice_mm: float, days: float | None
) -> Growth:
    """Return the change between two volumes, each measured in slices of a thickness."""
    sds = [
        volume_sd((6 * volume / math.pi) ** (1 / 3), slice_mm)
        for volume, slice_mm in ((prior_mm3, prior_slice_mm), (current_mm3, current_slice_mm))
    ]
    return Growth(math.log(current_mm3 / prior_mm3), math.hypot(*sds), days)


def _percent(log_ratio: float) -> float:
    return 100 * math.expm1(log_ratio)
