"""A nodule is measured to a fraction of a voxel, without its vessel, and no finding leaves the nodule it was in."""

import sys

import numpy as np
import pytest
import torch

from gcnn_cli.detection.blob_scale import blob_diameters
from gcnn_cli.detection.findings import Candidate
from gcnn_cli.detection.lungs import LungConfig, segment_lungs
from gcnn_cli.detection.measure import measure_nodule
from gcnn_cli.detection.proposals import ProposalConfig, load_proposer
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.resample import resample
from gcnn_cli.scan.volume import Volume, make_affine

AXES = np.eye(3)[:, ::-1]
SIDE = 60
SLICES_MM = [1.0, 2.5, 5.0]


FIELD = 72
AFFINE = make_affine(np.ones(3), AXES, np.array([10.0, -20.0, 30.0]))
ALL = np.ones((FIELD,) * 3, bool)


def field(*shapes):
    """HU with partial volume: each shape is a signed distance in voxels, painted at 40 HU into lung."""
    hu = np.full((FIELD,) * 3, -850.0)
    for distance in shapes:
        hu += np.clip(0.5 - distance, 0, 1) * (40 - hu)
    return Volume(hu.astype(np.float32), AFFINE)


def ball(center, radius):
    return np.linalg.norm(np.indices((FIELD,) * 3).transpose(1, 2, 3, 0) - center, axis=3) - radius


def rod(y0, x0, radius):
    _, y, x = np.indices((FIELD,) * 3)
    return np.hypot(y - y0, x - x0) - radius


def measured_at(grid, center):
    """What is measured from a candidate at a voxel, with the size that detection would give it."""
    index = np.array([center], float)
    diameter = float(blob_diameters(grid.hu, ALL, index, 1.0)[0])
    x, y, z = grid.position_mm(index)[0]
    return measure_nodule(grid, ALL, Candidate((x, y, z), diameter, 1.0))


@pytest.mark.parametrize("diameter", [4, 6, 9, 14, 22])
def test_a_ball_is_measured_to_a_fraction_of_a_voxel(diameter):
    center = np.array([35.3, 36.8, 34.1])
    grid = field(ball(center, diameter / 2))
    measured = measured_at(grid, center + 0.05 * diameter)
    assert measured.diameter_mm == pytest.approx(diameter, rel=0.08, abs=0.2)
    assert measured.volume_mm3 == pytest.approx(np.pi / 6 * measured.diameter_mm**3)
    assert np.linalg.norm(grid.index_zyx(np.array(measured.position_mm)) - center) < 0.25


def test_the_vessel_a_nodule_sits_on_is_not_measured():
    grid = field(ball((36, 36, 36), 5), rod(41, 36, 1.5))
    measured = measured_at(grid, (36, 36, 36))
    assert measured.diameter_mm == pytest.approx(10, rel=0.12)
    assert np.linalg.norm(grid.index_zyx(np.array(measured.position_mm)) - 36) < 0.8


@pytest.mark.parametrize("center", [30.0, 30.5, 31.5, 30.2])
def test_a_place_between_voxels_is_measured_where_it_is(center):
    """Halves round up in cut_patch, to even numbers in numpy: a voxel's difference."""
    grid = field(ball((center,) * 3, 5))
    measured = measured_at(grid, (center,) * 3)
    assert np.allclose(measured.position_mm, grid.position_mm(np.full(3, center)), atol=0.1)
    assert measured.diameter_mm == pytest.approx(10, rel=0.1)


def test_mirrored_scans_have_mirrored_measures_at_their_borders():
    grid = field(ball((1.0, 36, 36), 7), ball((FIELD - 2.0, 36, 36), 7))
    first, last = (measured_at(grid, (z, 36, 36)).position_mm[2] - AFFINE[2, 3] for z in (1.5, FIELD - 2.5))
    assert first == pytest.approx(FIELD - 1 - last, abs=0.05)


def in_slices(hu, spacing_zyx, thickness_mm):
    """A scan in contiguous slices, each the mean over its thickness, which is a multiple of the spacing."""
    step = round(thickness_mm / spacing_zyx[0])
    count = len(hu) // step
    means = hu[: count * step].reshape(count, step, *hu.shape[1:]).mean(axis=1)
    affine = make_affine(np.array([thickness_mm, *spacing_zyx[1:]]), AXES, np.zeros(3))
    affine[2, 3] = (step - 1) / 2 * spacing_zyx[0]
    return Volume(means.astype(np.float32), affine)


@pytest.mark.parametrize("thickness_mm", SLICES_MM)
@pytest.mark.parametrize("diameter", [4.0, 5.0, 7.0])
def test_a_nodule_on_a_vessel_as_thick_as_half_of_it_keeps_its_center(diameter, thickness_mm):
    z, y, x = np.indices((2 * SIDE, SIDE, SIDE)).astype(float)
    z = (z - SIDE) / 2  # the grid is of 0.5 mm along z
    y, x = y - SIDE / 2, x - SIDE / 2
    radius = diameter / 2
    nodule = np.sqrt(z**2 + y**2 + x**2) - radius
    vessel = np.where(x > 0, np.hypot(y, z), np.inf) - radius / 2  # leads away to one side
    hu = -850 + np.clip(0.5 - np.minimum(nodule, vessel), 0, 1) * 890
    grid = resample(in_slices(hu, np.array([0.5, 1, 1]), thickness_mm), 1.0)
    center = np.array([SIDE / 2, SIDE / 2, SIDE / 2])  # x, y, z
    for scale in (1.0, 1.5, 2.0):  # what the candidate takes for the diameter
        candidate = Candidate((float(center[0]), float(center[1]), float(center[2])), scale * diameter, 1.0)
        measured = measure_nodule(grid, np.ones(grid.shape, bool), candidate)
        assert np.linalg.norm(np.subtract(measured.position_mm, center)) < radius


@pytest.mark.data
@pytest.mark.parametrize("thickness_mm", SLICES_MM)
def test_no_transplanted_nodule_that_a_candidate_hits_is_lost_by_measuring(
    shared_data, root, thickness_mm, monkeypatch
):
    monkeypatch.syspath_prepend(str(root / "tests" / "benchmarks"))
    sys.modules.pop("transplants", None)
    import transplants

    scan = read_volume(shared_data / "scans" / "R01-001.mha")
    rng = np.random.default_rng(0)
    stacks = sorted((shared_data / "nodules").glob("*.npz"))
    nodules = [n for i in rng.permutation(len(stacks))[:60] if (n := transplants.read_nodule(stacks[i], ""))]
    hu, spacing = scan.hu.astype(np.float32), scan.spacing_zyx
    pools = transplants.places(hu, spacing, rng)
    marks = []  # center in voxels, radius in mm
    for n, nodule in enumerate(nodules):
        for place in pools[n % 3][rng.permutation(len(pools[n % 3]))[:50]]:
            if all(np.linalg.norm((place - other) * spacing) > 32 for other, _ in marks):
                center = transplants.insert(hu, spacing, place, nodule, rng)
                if center is not None:
                    marks.append((center, nodule.diameter_mm / 2))
                    break
    fine = np.repeat(hu, 2, axis=0)  # slices of half the thickness: any of the tested ones is a multiple
    thick = in_slices(fine, spacing * (0.5, 1, 1), thickness_mm * spacing[0])
    grid = resample(thick, 1.0)
    lungs = segment_lungs(grid, LungConfig())
    candidates = load_proposer(torch.device("cpu")).propose(grid, lungs, ProposalConfig(kept=500))
    positions = np.array([c.position_mm for c in candidates])
    hit = 0
    for center, radius in marks:
        z, y, x = (
            center + np.array([0.25, 0, 0])
        ) * spacing  # the first half slice lies a quarter before the first slice
        first = np.flatnonzero(np.linalg.norm(positions - (x, y, z), axis=1) < radius)
        for n in first[:1]:
            hit += 1
            measured = measure_nodule(grid, lungs, candidates[n])
            assert np.linalg.norm(np.subtract(measured.position_mm, (x, y, z))) < radius
    assert hit >= 20
