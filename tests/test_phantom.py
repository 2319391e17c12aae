"""The phantom is what it says: the same from its seed, its truth where it is drawn, a chest in HU."""

import csv

import numpy as np
import pytest
from scipy import ndimage

from gcnn_cli.errors import UsageError
from gcnn_cli.phantom import PhantomConfig, make_phantom, write_phantom
from gcnn_cli.phantom.anatomy import Body
from gcnn_cli.phantom.lesions import draw_nodule, make_shape
from gcnn_cli.phantom.noise import make_grain
from gcnn_cli.scan.reading import read_volume

COARSE = (2.5, 1.6, 1.6)


def test_the_same_seed_is_the_same_scan(phantom):
    again = make_phantom(phantom.config)
    assert np.array_equal(again.volume.hu, phantom.volume.hu)
    assert again.nodules == phantom.nodules
    other = make_phantom(PhantomConfig(seed=4, spacing_zyx=COARSE))
    assert not np.array_equal(other.volume.hu, phantom.volume.hu)


def test_all_kinds_are_there_and_apart(phantom):
    assert {n.kind for n in phantom.nodules} == {
        "solid", "part-solid", "ground-glass", "juxtapleural", "vessel-attached",
    }  # fmt: skip
    assert len(phantom.nodules) == phantom.config.nodules
    centers = np.array([n.position_mm for n in phantom.nodules])
    distances = np.linalg.norm(centers[:, None] - centers[None], axis=2)
    assert distances[~np.eye(len(centers), dtype=bool)].min() > 10


def test_nodules_lie_in_the_lungs_and_are_brighter(phantom):
    depth = ndimage.distance_transform_edt(~phantom.lungs, sampling=phantom.volume.spacing_zyx)
    for nodule in phantom.nodules:
        index = tuple(np.round(phantom.volume.index_zyx(np.array(nodule.position_mm))).astype(int))
        assert depth[index] < 2
        assert phantom.volume.hu[index] > -750, nodule


def test_the_truth_is_what_is_drawn():
    """Center and volume recomputed from the voxels of a nodule in an empty lung."""
    rng = np.random.default_rng(0)
    spacing, origin = np.array([0.8, 0.8, 1.0]), np.array([-20.0, -20.0, -20.0])
    for diameter in (4.0, 7.0, 12.0):
        hu = np.full((40, 50, 50), -865.0)
        shape = make_shape(np.array([0.3, -0.2, 0.4]), diameter, rng)
        nodule = draw_nodule(hu, origin, spacing, shape, "solid", lambda x, y, z: -np.ones_like(x))
        weight = (hu + 865) / (45 + 865)
        volume = weight.sum() * spacing.prod()
        center = origin + spacing * np.array(ndimage.center_of_mass(weight))[::-1]
        assert volume == pytest.approx(np.pi / 6 * nodule.diameter_mm**3, rel=0.01)
        assert np.linalg.norm(center - nodule.position_mm) < 0.05
        assert nodule.diameter_mm == pytest.approx(diameter, rel=0.15)


def test_a_nodule_outside_the_lung_is_not_drawn():
    hu = np.zeros((30, 30, 30))
    shape = make_shape(np.zeros(3), 6.0, np.random.default_rng(0))
    origin, spacing = np.full(3, -15.0), np.ones(3)
    assert draw_nodule(hu, origin, spacing, shape, "solid", lambda x, y, z: np.ones_like(x)) is None
    assert not hu.any()


def test_tissues_have_their_hu(phantom):
    hu, lungs = phantom.volume.hu, phantom.lungs
    assert hu.min() >= -1024
    inner = ndimage.binary_erosion(lungs, iterations=3)
    assert -900 < np.median(hu[inner]) < -800
    assert abs(np.median(hu[:, :4, :4]) + 1000) < 15  # the room
    heart = phantom.volume.index_zyx(np.array([22.0, -22.0, -42.0])).astype(int)
    assert abs(np.median(hu[tuple(slice(h - 3, h + 4) for h in heart)]) - 40) < 15
    assert (hu > 300).sum() > 1000  # bones
    assert 2500 < lungs.sum() * np.prod(phantom.volume.spacing_zyx) / 1000 < 6000  # mL


def test_the_noise_has_the_asked_level_and_a_grain(phantom):
    quiet = make_phantom(PhantomConfig(seed=3, spacing_zyx=COARSE, noise_hu=0))
    noise = (phantom.volume.hu - quiet.volume.hu)[:, 40:100, 80:110].astype(float)
    heart = Body().heart(
        *(phantom.volume.position_mm(np.indices(noise.shape).reshape(3, -1).T + np.array([0, 40, 80])).T)
    )
    inside = heart.reshape(noise.shape) < -5
    assert noise[inside].std() == pytest.approx(phantom.config.noise_hu, rel=0.2)


def test_the_grain_is_correlated_in_the_plane_only():
    grain = make_grain((20, 80, 80), np.array([2.5, 0.7, 0.7]), 22.0, np.random.default_rng(0))
    neighbors = [np.corrcoef(grain[a].ravel(), grain[b].ravel())[0, 1] for a, b in (
        (np.s_[:, :, 1:], np.s_[:, :, :-1]), (np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1]),
    )]  # fmt: skip
    assert neighbors[0] > 0.3
    assert neighbors[1] > 0.3
    assert abs(neighbors[2]) < 0.02
    assert grain.std() == pytest.approx(22)


def test_files_hold_the_same_scan_and_truth(phantom, tmp_path):
    write_phantom(phantom, tmp_path, dicom=True)
    for path in (tmp_path / "thorax.mhd", tmp_path / "thorax_dicom"):
        read = read_volume(path)
        assert np.array_equal(read.hu, phantom.volume.hu)
        assert np.allclose(read.to_world, phantom.volume.to_world, atol=1e-3)
    with (tmp_path / "annotations.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == [n.kind for n in phantom.nodules]
    assert {row["seriesuid"] for row in rows} == {"thorax"}
    assert float(rows[0]["coordX"]) == pytest.approx(phantom.nodules[0].position_mm[0], abs=1e-3)
    with pytest.raises(UsageError, match="exists already"):
        write_phantom(phantom, tmp_path)


@pytest.mark.parametrize("changes", [{"seed": -1}, {"spacing_zyx": (9, 1, 1)}, {"nodules": 99}, {"noise_hu": -1}])
def test_impossible_phantoms_are_refused(changes):
    with pytest.raises(UsageError):
        PhantomConfig(**changes)


@pytest.mark.slow
def test_the_sample_is_made_by_its_command(sample):
    made = make_phantom(PhantomConfig())
    assert np.array_equal(read_volume(sample).hu, made.volume.hu)
