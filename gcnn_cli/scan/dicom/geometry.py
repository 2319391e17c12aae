"""The geometry gate: do these slices form one regular, unsheared stack?

A volume has one affine for all its voxels, and each slice has a position of its own. The two agree only
if the slices are parallel, equally spaced along their normal and not displaced in their plane.
Otherwise every position after the defect would be wrong without any sign of it, so the stack is
refused.

Slices are ordered along their normal, n = row x column; file names and InstanceNumber are ignored.
Frame: LPS mm.

Tolerance. The distance between two neighbors may differ from the median distance by 1 %. Positions
with one or two decimals are allowed their rounding error in addition: 0.625 mm, rounded to 0.1 mm,
gives distances of 0.6 and 0.7. No slice may lie farther than 0.1 mm plus 1 % of the spacing from its
place by the affine; otherwise small differences would add up unseen. This bounds the error of a
reported position. A single missing slice changes a distance by 100 %.

Gaps. On request a stack that fails only for its distances is made even: slices are interpolated at
even places between the true slices (`gaps`). A gap may be as wide as the slices of the coarsest stack
that passes, so that no scan is sampled worse than one that passes. Neighbors much closer than usual
are not a gap but two passes of the scanner in one series.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.errors import GeometryError
from gcnn_cli.scan.lattice import MAX_SPACING_MM, Array, checked_affine, make_affine

_SAME_PLACE_MM = 1e-3
_SPACING_TOLERANCE = 0.01  # share of the median distance
_PLACE_TOLERANCE_MM = 0.1  # added to that share, from the place that the affine gives
_ROUNDINGS_MM = (0.1, 0.01)  # last decimals that matter, coarsest first
_FLOAT32_NOISE_MM = 1e-4  # error of positions that were once stored as float32
_NARROWEST = 0.75  # share of the median distance, in a stack whose gaps are filled
_ORIENTATION_TOLERANCE = 2e-3


@dataclass(frozen=True)
class Plane:
    """Place, axes and size of one slice; LPS mm.

    position:         center of the first voxel
    row_direction:    direction in which the column index grows
    column_direction: direction in which the row index grows
    pixel_spacing:    between rows, between columns
    """

    position: tuple[float, float, float]
    row_direction: tuple[float, float, float]
    column_direction: tuple[float, float, float]
    pixel_spacing: tuple[float, float]
    rows: int
    columns: int


@dataclass(frozen=True)
class Verdict:
    """Judgment of the gate. `problem` is empty for a sound stack; then order and to_world are set.

    order:    indices of the slices to keep, along the normal
    places:   their places along the first axis of to_world, in voxels; empty for 0, 1, 2, ...
    fillable: the only problem is a gap that allow_gaps would fill
    """

    problem: str = ""
    checks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    order: tuple[int, ...] = ()
    to_world: Array | None = None
    places: tuple[float, ...] = ()
    fillable: bool = False


def check_stack(
    planes: Sequence[Plane], same_pixels: Callable[[int, int], bool], *, allow_gaps: bool = False
) -> Verdict:
    """Judge a stack.

    same_pixels: compares the pixels of two slices; called only for slices at the same place
    allow_gaps:  accept a stack whose only defect is a small gap or uneven distances, and set `places`
    """
    problem = _mixed(planes)
    if problem:
        return Verdict(problem)
    row, column = (np.array(d) for d in (planes[0].row_direction, planes[0].column_direction))
    lengths = (np.linalg.norm(row), np.linalg.norm(column))
    if max(abs(float(n) - 1) for n in lengths) > _ORIENTATION_TOLERANCE or abs(row @ column) > _ORIENTATION_TOLERANCE:
        return Verdict("the direction cosines of the slices are not orthonormal")
    row, column = row / lengths[0], column / lengths[1]
    normal = np.cross(row, column)
    positions = np.array([plane.position for plane in planes])
    along = positions @ normal
    order = [int(n) for n in np.argsort(along, kind="stable")]

    order, repeated, problem = _without_repeats(order, positions, same_pixels)
    if problem:
        return Verdict(problem)
    if len(order) < 2:
        return Verdict("a single slice has no measurable thickness")
    along = along[order]
    usual = float(np.median(np.diff(along)))
    uneven = _uneven(along, _rounding_mm(positions, normal))
    problem = _sheared(positions[order], normal, planes[0].pixel_spacing) or _bad_spacing(usual, planes[0])
    if uneven:
        obstacle = _obstacle(along)
        if problem or obstacle or not allow_gaps:
            remedy = obstacle if allow_gaps and obstacle else "is the series complete?"
            return Verdict(f"{uneven}; {remedy}", fillable=not (problem or obstacle))
    elif problem:
        return Verdict(problem)

    steps = round(float(along[-1] - along[0]) / usual) if uneven else len(order) - 1
    step = float(along[-1] - along[0]) / steps
    axes = np.stack([normal, column, row], axis=1)
    to_world = make_affine(np.array([step, *planes[0].pixel_spacing]), axes, positions[order[0]])
    if problem := _unsound(to_world):
        return Verdict(problem)
    verdict = Verdict(
        checks=(
            f"{steps + 1} slices, {step:.4g} mm apart along their normal",
            "one orientation and matrix size",
            f"no shear; gaps filled from {len(order)} slices" if uneven else "no gap, no shear",
        ),
        warnings=(f"{repeated} repeated slices with equal pixels were dropped",) if repeated else (),
        order=tuple(order),
        to_world=to_world,
    )
    return _filled(verdict, uneven, (along - along[0]) / step, steps + 1) if uneven else verdict


def overlapping(planes: Sequence[Plane]) -> tuple[int, int] | None:
    """Return two slices that cannot belong to one stack, None where there are none.

    They lie closer to each other than most neighbors do, as those of two passes of the scanner. Slices of several
    sizes, spacings or orientations give (0, 0).
    """
    if _mixed(planes):
        return 0, 0
    normal = np.cross(planes[0].row_direction, planes[0].column_direction)
    along = np.array([plane.position for plane in planes]) @ normal
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    apart = gaps[gaps >= _SAME_PLACE_MM]
    if not len(gaps) or (len(apart) and gaps.min() >= _NARROWEST * float(np.percentile(apart, 75, method="lower"))):
        return None
    closest = int(gaps.argmin())
    return int(order[closest]), int(order[closest + 1])


def _unsound(to_world: Array) -> str:
    """Return the reason why a Volume would refuse the transform, or an empty string."""
    try:
        checked_affine(to_world)
    except GeometryError as error:
        return str(error)
    return ""


def _filled(verdict: Verdict, uneven: str, places: NDArray[np.float64], slices: int) -> Verdict:
    """Complete the verdict on an uneven stack, with a warning that counts the interpolated slices."""
    places = np.round(places, 6)
    measured = int((np.abs(places - np.round(places)) < _SAME_PLACE_MM).sum())
    warning = f"{uneven}: {slices - measured} of {slices} slices were interpolated; nodules in a gap can be missed"
    return replace(verdict, warnings=(*verdict.warnings, warning), places=tuple(places.tolist()))


def _mixed(planes: Sequence[Plane]) -> str:
    first = planes[0]
    sizes: set[tuple[float, ...]] = {(p.rows, p.columns) for p in planes}
    spacings: set[tuple[float, ...]] = {tuple(round(s, 4) for s in p.pixel_spacing) for p in planes}
    for what, values in (("matrix sizes", sizes), ("pixel spacings", spacings)):
        if len(values) > 1:
            return f"the series mixes {what}: {' and '.join(str(list(v)) for v in sorted(values)[:3])}"
    axes = np.array([[*p.row_direction, *p.column_direction] for p in planes])
    if np.abs(axes - [*first.row_direction, *first.column_direction]).max() > _ORIENTATION_TOLERANCE:
        return "the series mixes slice orientations"
    return ""


def _without_repeats(
    order: list[int], positions: NDArray[np.float64], same_pixels: Callable[[int, int], bool]
) -> tuple[list[int], int, str]:
    """Return the order with each place once, the number of dropped slices, and a problem if two at one place differ."""
    kept: list[int] = []
    for n in order:
        if kept and np.linalg.norm(positions[n] - positions[kept[-1]]) < _SAME_PLACE_MM:
            if not same_pixels(kept[-1], n):
                return (
                    kept,
                    0,
                    f"two different slices lie at the same place (slice {len(kept)}, {_mm(positions[n])})",
                )
        else:
            kept.append(n)
    return kept, len(order) - len(kept), ""


def _rounding_mm(positions: NDArray[np.float64], normal: NDArray[np.float64]) -> float:
    """Return the error of a distance along the normal that comes from rounding the positions."""
    units = np.zeros(3)
    for unit in reversed(_ROUNDINGS_MM):
        written = np.abs(positions - np.round(positions / unit) * unit).max(axis=0) < _FLOAT32_NOISE_MM
        units[written] = unit
    return float(units @ np.abs(normal))


def _uneven(along: NDArray[np.float64], rounding_mm: float) -> str:
    """Describe a gap or uneven spacing by its two slices (from 1 along the normal); empty for even slices."""
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    worst = int(np.abs(gaps - usual).argmax())
    if abs(gaps[worst] - usual) > _SPACING_TOLERANCE * usual + rounding_mm + 1e-9:
        return f"{_pair(along, worst)} are {gaps[worst]:.4g} mm apart, the others {usual:.4g} mm"
    drift = np.abs(along - np.linspace(along[0], along[-1], len(along)))
    if drift.max() > _SPACING_TOLERANCE * usual + max(rounding_mm, _PLACE_TOLERANCE_MM):
        worst = int(drift.argmax())
        return f"the slice spacing changes along the stack: slice {worst + 1} is {drift[worst]:.2f} mm from its place"
    return ""


def _obstacle(along: NDArray[np.float64]) -> str:
    """Return the reason why uneven slices cannot be made even, or an empty string."""
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    if gaps.max() > MAX_SPACING_MM:
        return f"a gap of more than {MAX_SPACING_MM:g} mm is not filled"
    if gaps.min() < _NARROWEST * usual:
        closest = _pair(along, int(gaps.argmin()))
        return f"{closest} are only {gaps.min():.4g} mm apart: more than one pass of the scanner"
    return ""


def _pair(along: NDArray[np.float64], first: int) -> str:
    return f"slices {first + 1} and {first + 2} (at {along[first]:.2f} and {along[first + 1]:.2f} mm)"


def _bad_spacing(step: float, plane: Plane) -> str:
    if step < _SAME_PLACE_MM:
        return "the slices lie in one plane: their positions do not differ along their normal"
    if step > MAX_SPACING_MM:
        return f"slices are {step:.2f} mm apart: too coarse to measure nodules (at most {MAX_SPACING_MM:g} mm)"
    if min(plane.pixel_spacing) <= 0:
        return f"pixel spacing must be positive, got {list(plane.pixel_spacing)} mm"
    return ""


def _sheared(positions: NDArray[np.float64], normal: NDArray[np.float64], pixel_spacing: tuple[float, float]) -> str:
    """Describe slices displaced in their own plane: a gantry tilt when steady, a defect otherwise; else empty."""
    offsets = positions - positions[0]
    in_plane = offsets - np.outer(offsets @ normal, normal)
    tolerance = 0.5 * max(pixel_spacing)
    steps = np.diff(in_plane, axis=0)
    jumps = np.linalg.norm(steps - np.median(steps, axis=0), axis=1)
    if jumps.max() > tolerance:
        worst = int(jumps.argmax())
        return f"slices {worst + 1} and {worst + 2} are displaced by {jumps[worst]:.1f} mm in their plane"
    displaced = np.linalg.norm(in_plane, axis=1)
    if displaced.max() > tolerance:
        worst = int(displaced.argmax())
        angle = math.degrees(math.atan2(displaced[worst], abs(float(offsets[worst] @ normal))))
        return (
            f"the stack is sheared by {angle:.1f} degrees (gantry tilt): slice {worst + 1} is displaced by"
            f" {displaced[worst]:.1f} mm in its plane"
        )
    return ""


def _mm(position: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{p:.2f}" for p in position) + ") mm"
