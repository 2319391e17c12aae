"""The geometry gate, on bare planes: sound stacks pass, and the slice at fault is named."""

from dataclasses import replace

import numpy as np
import pytest
from scan.scans import axial, oblique

from gcnn_cli.scan.dicom.geometry import Plane, Verdict, check_stack
from gcnn_cli.scan.lattice import MAX_SPACING_MM

STACKS = {"axial": axial(), "oblique": oblique(), "descending": axial() @ np.diag([-1.0, 1, 1, 1])}


def planes_of(to_world: np.ndarray, count: int = 12) -> list[Plane]:
    spacing = np.linalg.norm(to_world[:3, :3], axis=0)
    direction = to_world[:3, :3] / spacing
    return [
        Plane(
            tuple((to_world @ [n, 0, 0, 1])[:3]),
            tuple(direction[:, 2]),
            tuple(direction[:, 1]),
            (spacing[1], spacing[2]),
            64,
            48,
        )
        for n in range(count)
    ]


def moved(plane: Plane, offset: np.ndarray) -> Plane:
    return replace(plane, position=tuple(np.array(plane.position) + offset))


def judge(planes: list[Plane], equal: bool = True) -> Verdict:
    return check_stack(planes, lambda a, b: equal)


@pytest.mark.parametrize("to_world", STACKS.values(), ids=STACKS)
def test_every_slice_lies_where_the_affine_says(to_world: np.ndarray) -> None:
    planes = planes_of(to_world)
    verdict = judge(planes)
    assert verdict.problem == ""
    for place, n in enumerate(verdict.order):
        np.testing.assert_allclose((verdict.to_world @ [place, 0, 0, 1])[:3], planes[n].position, atol=1e-9)
    assert verdict.checks[0] == "12 slices, 2.5 mm apart along their normal"


@pytest.mark.parametrize("to_world", STACKS.values(), ids=STACKS)
def test_the_order_of_the_input_means_nothing(to_world: np.ndarray) -> None:
    planes = planes_of(to_world)
    verdict = judge(planes)
    shuffle = np.random.default_rng(1).permutation(len(planes))
    again = judge([planes[n] for n in shuffle])
    np.testing.assert_allclose(again.to_world, verdict.to_world, atol=1e-9)
    assert [planes[shuffle[n]] for n in again.order] == [planes[n] for n in verdict.order]


def test_the_first_pixel_spacing_is_between_rows() -> None:
    to_world = judge(planes_of(axial(spacing=(2.5, 0.8, 0.7)))).to_world
    np.testing.assert_allclose(to_world, axial(spacing=(2.5, 0.8, 0.7)), atol=1e-12)


@pytest.mark.parametrize("missing", range(1, 11))
@pytest.mark.parametrize("to_world", STACKS.values(), ids=STACKS)
def test_a_missing_slice_is_named(to_world: np.ndarray, missing: int) -> None:
    planes = planes_of(to_world)
    order = judge(planes).order
    del planes[order[missing]]
    problem = judge(planes).problem
    assert f"slices {missing} and {missing + 1} " in problem
    assert "are 5 mm apart, the others 2.5 mm" in problem


def test_slices_that_drift_from_their_places_are_refused() -> None:
    """No gap stands out, yet in the middle the affine would be off by half a millimeter."""
    planes = planes_of(axial(), 100)
    drifting = [moved(p, np.array([0, 0, 0.0002 * n * n])) for n, p in enumerate(planes)]
    assert "slice spacing changes along the stack: slice 50 is 0.49 mm from its place" in judge(drifting).problem


@pytest.mark.parametrize(("drift_mm", "sound"), [(0.11, True), (0.14, False)])
def test_a_slice_may_lie_a_tenth_of_a_millimeter_and_one_percent_from_its_place(drift_mm: float, sound: bool) -> None:
    """1 % of 2.5 mm is 0.025 mm. The middle of 100 slices is farthest off: a quarter of 99 squared times the rate."""
    rate = drift_mm * 4 / 99**2
    planes = [moved(p, np.array([0, 0, rate * n * n])) for n, p in enumerate(planes_of(axial(), 100))]
    assert (judge(planes).problem == "") is sound


@pytest.mark.parametrize(("spacing_mm", "decimals"), [(0.625, 1), (0.333, 2)])
def test_rounded_positions_are_let_through(spacing_mm: float, decimals: int) -> None:
    planes = planes_of(axial(spacing=(spacing_mm, 0.7, 0.7)), 100)
    rounded = [replace(p, position=tuple(np.round(p.position, decimals))) for p in planes]
    verdict = judge(rounded)
    assert verdict.problem == ""
    for plane, n in zip(planes, range(100), strict=True):
        assert np.linalg.norm((verdict.to_world @ [n, 0, 0, 1])[:3] - plane.position) < 2 * 10**-decimals


@pytest.mark.parametrize(("off_by", "sound"), [(0.009, True), (-0.009, True), (0.011, False), (-0.011, False)])
@pytest.mark.parametrize("to_world", STACKS.values(), ids=STACKS)
def test_spacing_may_be_uneven_by_one_percent(to_world: np.ndarray, off_by: float, sound: bool) -> None:
    planes = planes_of(to_world)
    step = to_world[:3, 0] * off_by
    beyond = [moved(p, step + 1 / 300) if n > 5 else moved(p, np.array([1 / 300] * 3)) for n, p in enumerate(planes)]
    assert (judge(beyond).problem == "") is sound


def test_rounding_excuses_no_more_than_it_can_do() -> None:
    """0.1 mm of 2.5 mm is above 1 %: passes for positions with one decimal, is refused with more."""
    planes = planes_of(axial())
    shifted = [moved(p, np.array([0, 0, 0.1])) if n > 5 else p for n, p in enumerate(planes)]
    assert judge(shifted).problem == ""
    finer = [moved(p, np.array([0, 0, 0.0123])) for p in shifted]
    assert "slices 6 and 7 (at -287.49 and -284.89 mm) are 2.6 mm apart, the others 2.5 mm" in judge(finer).problem
    too_far = [moved(p, np.array([0, 0, 0.2])) if n > 5 else p for n, p in enumerate(planes)]
    assert "are 2.7 mm apart" in judge(too_far).problem


def test_slices_in_one_plane_are_refused() -> None:
    planes = [replace(p, position=(0.01 * n, 0.0, 0.0)) for n, p in enumerate(planes_of(axial()))]
    assert "lie in one plane" in judge(planes).problem


@pytest.mark.parametrize("degrees", [1, 5, -20])
@pytest.mark.parametrize("to_world", STACKS.values(), ids=STACKS)
def test_a_tilted_gantry_is_refused_with_its_angle(to_world: np.ndarray, degrees: float) -> None:
    step = np.tan(np.radians(degrees)) * 2.5 * to_world[:3, 1] / np.linalg.norm(to_world[:3, 1])
    tilted = [moved(p, n * step) for n, p in enumerate(planes_of(to_world, 40))]
    problem = judge(tilted).problem
    assert f"sheared by {abs(degrees):.1f} degrees" in problem
    assert "slice 40 is displaced by" in problem


@pytest.mark.parametrize(("number", "named"), [(0, "slices 1 and 2"), (5, "slices 5 and 6"), (11, "slices 11 and 12")])
def test_a_displaced_slice_is_refused(number: int, named: str) -> None:
    planes = planes_of(axial())
    planes[number] = moved(planes[number], np.array([3.0, 0, 0]))
    assert f"{named} are displaced by 3.0 mm in their plane" in judge(planes).problem


@pytest.mark.parametrize("pixel_mm", [0.5, 2.0])
@pytest.mark.parametrize(("pixels", "sound"), [(0.45, True), (0.55, False)])
def test_a_slice_may_be_displaced_by_half_a_pixel(pixel_mm: float, pixels: float, sound: bool) -> None:
    planes = planes_of(axial(spacing=(2.5, pixel_mm, pixel_mm)))
    planes[5] = moved(planes[5], np.array([0, pixels * pixel_mm, 0]))
    assert (judge(planes).problem == "") is sound


def test_repeated_slices_are_dropped_with_a_warning() -> None:
    planes = planes_of(axial())
    verdict = judge([*planes, planes[3], planes[3], planes[7]])
    assert verdict.problem == ""
    np.testing.assert_allclose(verdict.to_world, judge(planes).to_world)
    assert len(verdict.order) == 12
    assert "3 repeated slices" in verdict.warnings[0]


def test_different_slices_at_one_place_are_refused() -> None:
    planes = planes_of(axial())
    assert "two different slices lie at the same place (slice 4, " in judge([*planes, planes[3]], False).problem


def test_slices_at_one_place_are_compared_with_each_other() -> None:
    planes = planes_of(axial())
    asked = []
    check_stack([*planes, planes[3], planes[7]], lambda a, b: asked.append((a, b)) or True)
    assert asked == [(3, 12), (7, 13)]


MIXES = {
    "matrix sizes": {"rows": 32},
    "pixel spacings": {"pixel_spacing": (0.9, 0.9)},
    "slice orientations": {"row_direction": (0.0, 1.0, 0.0), "column_direction": (0.0, 0.0, -1.0)},
}


@pytest.mark.parametrize("what", MIXES)
def test_a_mixed_series_is_refused(what: str) -> None:
    planes = planes_of(axial())
    planes[4] = replace(planes[4], **MIXES[what])
    assert f"mixes {what}" in judge(planes).problem


def test_one_slice_is_no_stack() -> None:
    assert "single slice" in judge(planes_of(axial(), 1)).problem


def test_two_slices_are_a_stack() -> None:
    assert judge(planes_of(axial(), 2)).problem == ""


def test_directions_are_made_unit_vectors() -> None:
    """Cosines written with few decimals must not stretch the pixels; vectors far from unit length are refused."""
    planes = planes_of(axial())

    def scaled(row: float, column: float) -> list[Plane]:
        return [
            replace(
                p,
                row_direction=tuple(row * v for v in p.row_direction),
                column_direction=tuple(column * v for v in p.column_direction),
            )
            for p in planes
        ]

    np.testing.assert_allclose(judge(scaled(1.001, 0.999)).to_world, judge(planes).to_world, atol=1e-12)
    for row, column in ((1.01, 1.0), (1.0, 0.99)):
        assert "not orthonormal" in judge(scaled(row, column)).problem


def test_a_normal_is_needed() -> None:
    planes = [replace(p, row_direction=p.column_direction) for p in planes_of(axial())]
    assert "not orthonormal" in judge(planes).problem


@pytest.mark.parametrize("spacing", [(0.0, 0.7), (-0.8, 0.7)])
def test_pixel_spacing_must_be_positive(spacing: tuple[float, float]) -> None:
    planes = [replace(p, pixel_spacing=spacing) for p in planes_of(axial())]
    assert "pixel spacing must be positive" in judge(planes).problem


def test_a_sound_stack_can_be_made_a_volume() -> None:
    """The gate refuses whatever a volume would refuse: voxels finer than any CT, axes that are slightly skewed."""
    fine = [replace(p, pixel_spacing=(0.005, 0.7)) for p in planes_of(axial())]
    assert "finer than any CT" in judge(fine).problem
    skew = [replace(p, column_direction=(0.0015, 1.0, 0.0)) for p in planes_of(axial())]
    assert "not orthogonal" in judge(skew).problem


@pytest.mark.parametrize(("mm", "sound"), [(5.0, True), (MAX_SPACING_MM, True), (6.5, False)])
def test_thick_slices_are_refused(mm: float, sound: bool) -> None:
    assert (judge(planes_of(axial(spacing=(mm, 0.7, 0.7)))).problem == "") is sound
