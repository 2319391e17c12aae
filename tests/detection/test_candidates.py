"""Balls are found where they are and as large as they are; lines and plates are ranked behind them."""

import csv

import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from gcnn_cli.detection.candidates import CandidateConfig, find_candidates
from gcnn_cli.detection.findings import Candidate
from gcnn_cli.detection.lungs import LungConfig, segment_lungs
from gcnn_cli.detection.measure import measure_nodule
from gcnn_cli.detection.peaks import peak_voxels
from gcnn_cli.errors import InputError
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.resample import resample
from gcnn_cli.scan.volume import Volume, make_affine

SIDE = 72
AFFINE = make_affine(np.ones(3), np.eye(3)[:, ::-1], np.array([10.0, -20.0, 30.0]))
ALL = np.ones((SIDE,) * 3, bool)


def field(*shapes, background=-850.0):
    """HU with partial volume: each shape is a signed distance in voxels, painted at 40 HU."""
    hu = np.full((SIDE,) * 3, background)
    for distance in shapes:
        hu += np.clip(0.5 - distance, 0, 1) * (40 - hu)
    return Volume(hu.astype(np.float32), AFFINE)


def ball(center, radius):
    z, y, x = np.indices((SIDE,) * 3)
    return np.sqrt((z - center[0]) ** 2 + (y - center[1]) ** 2 + (x - center[2]) ** 2) - radius


def rod(y0, x0, radius):
    _, y, x = np.indices((SIDE,) * 3)
    return np.hypot(y - y0, x - x0) - radius


@pytest.mark.parametrize("diameter", [4, 6, 10, 16, 24])
def test_a_ball_is_found_at_its_center_with_its_size(diameter):
    center = np.array([35.3, 36.8, 34.1])
    grid = field(ball(center, diameter / 2))
    first = find_candidates(grid, ALL, CandidateConfig())[0]
    assert np.linalg.norm(grid.index_zyx(np.array(first.position_mm)) - center) < 0.5
    assert diameter / 1.5 < first.diameter_mm < diameter * 1.5


@pytest.mark.parametrize("center", [(71, 36, 36), (0, 36, 36), (36, 0, 36), (36, 36, 71)])
def test_a_nodule_in_the_scans_last_slice_is_found(center):
    grid = field(ball(center, 3))
    first = find_candidates(grid, ALL, CandidateConfig())[0]
    assert np.linalg.norm(grid.index_zyx(np.array(first.position_mm)) - center) < 0.2


def test_balls_come_before_lines_and_plates():
    z, _, _ = np.indices((SIDE,) * 3)
    grid = field(ball((36, 20, 20), 3), ball((20, 50, 20), 2.5), rod(50, 50, 3), rod(20, 52, 2), np.abs(z - 60.0) - 2)
    found = find_candidates(grid, ALL, CandidateConfig())
    centers = grid.index_zyx(np.array([c.position_mm for c in found[:2]]))
    assert np.allclose(centers[np.argsort(centers[:, 1])], [[36, 20, 20], [20, 50, 20]], atol=0.6)


def test_only_the_mask_is_searched_and_the_most_are_kept():
    grid = field(ball((36, 20, 20), 3), ball((36, 50, 50), 3))
    half = ALL.copy()
    half[:, :36] = False
    found = find_candidates(grid, half, CandidateConfig())
    assert all(grid.index_zyx(np.array(c.position_mm))[1] >= 35 for c in found)
    assert len(find_candidates(grid, ALL, CandidateConfig(max_candidates=1))) == 1
    assert find_candidates(grid, np.zeros_like(ALL), CandidateConfig()) == []
    assert find_candidates(field(), ALL, CandidateConfig()) == []


def test_no_two_candidates_lie_together():
    grid = field(ball((36, 20, 20), 6), ball((36, 40, 40), 4), rod(50, 50, 3))
    positions = np.array([c.position_mm for c in find_candidates(grid, ALL, CandidateConfig())])
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    assert distances[~np.eye(len(positions), dtype=bool)].min() >= CandidateConfig().apart_mm


def test_a_nodule_at_the_wall_stands_out():
    wall = np.indices((SIDE,) * 3)[2] - 12.0  # everything left of x = 12 is wall
    grid = field(wall, ball((36, 36, 14.5), 4))
    first = find_candidates(grid, np.indices((SIDE,) * 3)[2] >= 12, CandidateConfig())[0]
    assert np.linalg.norm(grid.index_zyx(np.array(first.position_mm)) - [36, 36, 15]) < 3


def test_impossible_settings_are_refused():
    with pytest.raises(InputError, match="min_diameter_mm"):
        CandidateConfig(min_diameter_mm=40)
    with pytest.raises(InputError, match="at least 2 scales"):
        CandidateConfig(scales=1)


@pytest.mark.parametrize("diameter", [4, 6, 9, 14, 22])
def test_a_ball_is_measured_to_a_fraction_of_a_voxel(diameter):
    center = np.array([35.3, 36.8, 34.1])
    grid = field(ball(center, diameter / 2))
    measured = measure_nodule(grid, ALL, find_candidates(grid, ALL, CandidateConfig())[0])
    assert measured.diameter_mm == pytest.approx(diameter, rel=0.08, abs=0.2)
    assert measured.volume_mm3 == pytest.approx(np.pi / 6 * measured.diameter_mm**3)
    assert np.linalg.norm(grid.index_zyx(np.array(measured.position_mm)) - center) < 0.25


def test_the_vessel_a_nodule_sits_on_is_not_measured():
    grid = field(ball((36, 36, 36), 5), rod(41, 36, 1.5))
    measured = measure_nodule(grid, ALL, find_candidates(grid, ALL, CandidateConfig())[0])
    assert measured.diameter_mm == pytest.approx(10, rel=0.12)
    assert np.linalg.norm(grid.index_zyx(np.array(measured.position_mm)) - 36) < 0.8


@pytest.mark.data
@pytest.mark.parametrize("name", ["LIDC-IDRI-0023", "LIDC-IDRI-0132a", "LIDC-IDRI-0132b"])
def test_the_reference_nodules_are_among_the_first_fifty(shared_data, name):
    grid = resample(read_volume(shared_data / "scans" / f"{name}.mha"), 1.0)
    found = find_candidates(grid, segment_lungs(grid, LungConfig()), CandidateConfig(max_candidates=50))
    positions = np.array([c.position_mm for c in found])
    with (shared_data / "annotations.csv").open() as file:
        nodules = [row for row in csv.DictReader(file) if row["seriesuid"] == name]
    assert nodules
    for row in nodules:
        center = [float(row[c]) for c in ("coordX", "coordY", "coordZ")]
        assert (np.linalg.norm(positions - center, axis=1) < float(row["diameter_mm"]) / 2).any()


def test_peaks_are_where_a_maximum_filter_has_them():
    """At the borders and among ties too."""
    generator = np.random.default_rng(0)
    response = generator.integers(0, 9, (7, 8, 9)).astype(np.float32)
    allowed = generator.random(response.shape) < 0.8
    expected = np.argwhere((response == maximum_filter(response, size=3)) & allowed)
    assert np.array_equal(peak_voxels(response, allowed), expected)


@pytest.mark.parametrize("center", [30.0, 30.5, 31.5, 30.2])
def test_a_place_between_voxels_is_measured_where_it_is(center):
    """Halves round up in cut_patch, to even numbers in numpy: a voxel's difference."""
    grid = field(ball((center,) * 3, 5))
    x, y, z = grid.position_mm(np.full((1, 3), center))[0]
    measured = measure_nodule(grid, ALL, Candidate((x, y, z), 10.0, 1.0))
    assert np.allclose(measured.position_mm, (x, y, z), atol=0.1)
    assert measured.diameter_mm == pytest.approx(10, rel=0.1)


def test_mirrored_scans_have_mirrored_nodules_at_their_borders():
    """A nodule that the first or last slice cuts is searched on the half grid, between voxels."""
    grid = field(ball((1.0, 36, 36), 7), ball((SIDE - 2.0, 36, 36), 7))
    found = find_candidates(grid, ALL, CandidateConfig())[:2]
    first, last = sorted(measure_nodule(grid, ALL, c).position_mm[2] - AFFINE[2, 3] for c in found)
    assert first == pytest.approx(SIDE - 1 - last, abs=0.05)
