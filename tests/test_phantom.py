import csv
import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from gcnn_cli.errors import UsageError
from gcnn_cli.phantom import (
    KINDS,
    Phantom,
    PhantomConfig,
    make_phantom,
    quick_config,
    write_phantom,
)
from gcnn_cli.scan.reading import read_volume


@cache
def quick(**changes: float) -> Phantom:
    return make_phantom(replace(quick_config(3), **changes))


def index_of(phantom: Phantom, position_mm: tuple[float, float, float]) -> tuple[int, int, int]:
    z, y, x = np.round(phantom.volume.index_zyx(np.array(position_mm))).astype(int)
    return int(z), int(y), int(x)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    again = make_phantom(quick().config)
    assert again.volume.hu.tobytes() == quick().volume.hu.tobytes()
    assert again.nodules == quick().nodules
    assert make_phantom(quick_config(4)).volume.hu.tobytes() != quick().volume.hu.tobytes()


def test_centers_and_sizes_are_those_in_the_image():
    # Nodules 100 HU denser, all else equal: the difference is each voxel's share inside a nodule.
    plain, denser = quick(noise_hu=0), quick(noise_hu=0, nodule_offset_hu=100)
    share = (denser.volume.hu.astype(float) - plain.volume.hu) / 100
    labels, _ = ndimage.label(share > 0, np.ones((3, 3, 3)))
    voxel_mm3 = float(np.prod(plain.volume.spacing_zyx))
    for nodule in plain.nodules:
        own = labels == labels[index_of(plain, nodule.position_mm)]
        weights, where = share[own], np.argwhere(own)
        center = plain.volume.position_mm((weights[:, None] * where).sum(axis=0) / weights.sum())
        assert np.linalg.norm(center - nodule.position_mm) < 0.2, nodule
        assert weights.sum() * voxel_mm3 == pytest.approx(math.pi / 6 * nodule.diameter_mm**3, rel=0.05), nodule


def test_a_solid_nodule_stands_out_at_its_place_and_size():
    # Independent of the offset: what appears when the nodules are there and is gone without them.
    present, absent = quick(noise_hu=0), quick(noise_hu=0, nodules=0)
    change = present.volume.hu.astype(float) - absent.volume.hu
    nodule = next(n for n in present.nodules if n.kind == "solid")
    z, y, x = index_of(present, nodule.position_mm)
    reach = [math.ceil(nodule.diameter_mm / s) for s in present.volume.spacing_zyx]
    box = np.s_[z - reach[0] : z + reach[0] + 1, y - reach[1] : y + reach[1] + 1, x - reach[2] : x + reach[2] + 1]
    lung = float(np.median(absent.volume.hu[box]))
    volume = change[box].sum() / (35 - lung) * float(np.prod(present.volume.spacing_zyx))
    # Vessels inside lend it some of their own density: less appears than the whole.
    assert 0.8 < volume / nodule.volume_mm3 < 1.03


def test_every_kind_is_there_apart_from_the_others_and_in_the_lung():
    phantom = quick()
    assert [n.kind for n in phantom.nodules] == list(KINDS)
    outside = ndimage.distance_transform_edt(phantom.lungs, sampling=phantom.volume.spacing_zyx)
    for i, nodule in enumerate(phantom.nodules):
        depth = outside[index_of(phantom, nodule.position_mm)]
        radius = nodule.diameter_mm / 2
        assert 0 < depth < 1.3 * radius if nodule.kind == "juxtapleural" else depth > radius, nodule
        for other in phantom.nodules[:i]:
            gap = math.dist(nodule.position_mm, other.position_mm) - radius - other.diameter_mm / 2
            assert gap > 5


def test_kinds_have_their_density():
    phantom = quick(noise_hu=0)
    hu = {n.kind: int(phantom.volume.hu[index_of(phantom, n.position_mm)]) for n in phantom.nodules}
    assert -50 < hu["solid"] < 80
    assert -500 < hu["part-solid"] < 80, "a small core is blurred by the coarse grid"
    assert -700 < hu["ground-glass"] < -400
    assert -50 < hu["vessel-attached"] < 130


def test_seven_nodules_include_two_tiny_ones():
    sizes = sorted(n.diameter_mm for n in make_phantom(quick_config(2, nodules=9)).nodules)
    assert 3.2 < sizes[0] < sizes[1] < 4.8
    assert 4.5 < sizes[2] < sizes[-1] < 17


def test_tissues_are_in_their_ranges():
    phantom = quick(noise_hu=0)
    hu, lungs = phantom.volume.hu, phantom.lungs
    assert -900 < np.median(hu[lungs]) < -800
    liters = lungs.sum() * np.prod(phantom.volume.spacing_zyx) / 1e6
    assert 2.5 < liters < 5
    assert hu.min() >= -1024
    assert 400 < hu.max() < 1500
    assert hu[:, :4].max() < -950, "air in front of the body"
    front, back = (hu[lungs & (np.indices(hu.shape)[1] * 2.0 - 113 > y)] for y in (-100, 40))
    assert np.median(back) > np.median(front) + 5, "gravity"


def test_noise_has_its_strength_and_grain():
    noise = quick().volume.hu.astype(float) - quick(noise_hu=0).volume.hu
    # In the heart, in the middle of the body: left to the spine's front.
    middle = noise[30:50, 36:56, 80:100]
    assert middle.std() == pytest.approx(quick().config.noise_hu, rel=0.15)
    along_row = np.corrcoef(middle[:, :, 1:].ravel(), middle[:, :, :-1].ravel())[0, 1]
    across_slices = np.corrcoef(middle[1:].ravel(), middle[:-1].ravel())[0, 1]
    assert abs(along_row) > 0.05, "not white in the plane"
    assert abs(across_slices) < 0.4
    assert noise[:, :4].std() < 0.4 * middle.std(), "air is quieter"


def test_files_hold_the_same_scan_and_truth(tmp_path):
    phantom = quick()
    write_phantom(phantom, tmp_path, dicom=True)
    for path in (tmp_path / "thorax.mhd", tmp_path / "thorax_dicom"):
        read = read_volume(path)
        assert np.array_equal(read.hu, phantom.volume.hu)
        assert np.allclose(read.to_world, phantom.volume.to_world, atol=1e-3)
    rows = list(csv.DictReader((tmp_path / "annotations.csv").read_text().splitlines()))
    assert [row["kind"] for row in rows] == [n.kind for n in phantom.nodules]
    assert {row["seriesuid"] for row in rows} == {"thorax"}
    for row, nodule in zip(rows, phantom.nodules, strict=True):
        assert [float(row[f"coord{axis}"]) for axis in "XYZ"] == pytest.approx(nodule.position_mm, abs=1e-3)


@pytest.mark.parametrize("taken", ["thorax.mhd", "thorax.zraw", "annotations.csv", "thorax_dicom"])
def test_nothing_is_overwritten_unasked(tmp_path, taken):
    (tmp_path / taken).write_text("keep")
    with pytest.raises(UsageError, match="exists already"):
        write_phantom(quick(), tmp_path, dicom=True)
    assert [p.name for p in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "keep"


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": -1},
        {"spacing_zyx": (0.1, 1.0, 1.0)},
        {"spacing_zyx": (2.0, 1.0, 1.2)},
        {"nodules": 21},
        {"noise_hu": float("nan")},
        {"step_hu": 0},
        {"vessels_per_tree": 0},
    ],
)
def test_settings_that_make_no_phantom_are_refused(changes):
    with pytest.raises(UsageError, match="phantom"):
        PhantomConfig(**changes)


@pytest.mark.slow
def test_the_sample_is_made_by_its_command(sample):
    """Another processor rounds a few voxels in a million to the next step: 7 on one without AVX-512."""
    config = PhantomConfig()
    apart = np.abs(read_volume(sample).hu.astype(int) - make_phantom(config).volume.hu)
    assert apart.max() <= config.step_hu
    assert np.count_nonzero(apart) <= apart.size * 2e-5


@pytest.mark.slow
def test_the_finest_nodule_survives_the_samples_grid():
    phantom = make_phantom(PhantomConfig(noise_hu=0))
    tiny = min(phantom.nodules, key=lambda n: n.diameter_mm)
    assert phantom.volume.hu[index_of(phantom, tiny.position_mm)] > -400
