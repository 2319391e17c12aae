"""Chunks: nodules in full context, found where they are said to be; what they lack, others lack as often."""

import numpy as np
import pytest

from gcnn_cli.errors import InputError
from gcnn_cli.labels.discovery import cutouts_among
from gcnn_cli.labels.entries import CutoutEntry
from gcnn_cli.samples.chunks import chunk_samples, read_chunk
from gcnn_cli.samples.rims import narrow
from gcnn_cli.samples.sample import SampleConfig
from gcnn_cli.scan.folders import visible_files

CONFIG = SampleConfig(spacing_mm=1.25, side=36)
SPACING = np.array([2.5, 0.7, 0.7])
CENTER = np.array([15.2, 25.0, 22.5])


def write_chunk(path, **changes):
    """Lung with a ball of 8 mm at the center and a vessel above it."""
    index = np.indices((32, 48, 48)).transpose(1, 2, 3, 0)
    distance = np.linalg.norm((index - CENTER) * SPACING, axis=-1)
    hu = np.where(distance < 4, 40, -850)
    hu[25:28, 22:27, 21:25] = 0
    values = {"hu": hu.astype(np.int16), "spacing_zyx": SPACING, "centre_zyx": CENTER, "diameter_mm": 8.0}
    np.savez(path, **{**values, **changes})
    return CutoutEntry(path, path.stem, "LIDC-IDRI-0001", masked=False)


@pytest.fixture
def entry(tmp_path):
    return write_chunk(tmp_path / "LIDC-IDRI-0001_001.npz")


def test_a_folder_of_chunks_is_found(entry):
    found, problems = cutouts_among(visible_files(entry.path.parent))
    assert found == [entry]
    assert problems == []


def test_the_nodule_lies_in_the_middle_of_its_cube(entry):
    nodule = chunk_samples(read_chunk(entry, CONFIG), CONFIG, np.random.default_rng(0))[0]
    assert (nodule.label, nodule.kind, nodule.patient) == (1, "chunk", "LIDC-IDRI-0001")
    cube = nodule.hu.astype(float)
    assert cube.shape == (36, 36, 36)
    z, y, x = np.indices(cube.shape) - (36 - 1) / 2
    bright = (cube > -400) & (np.sqrt(z**2 + y**2 + x**2) < 8)  # the vessel is farther
    center = np.array([axis[bright].mean() for axis in (z, y, x)])
    assert np.abs(center).max() <= 0.6  # voxels: cut without interpolation


def test_negatives_keep_clear_of_the_nodule_and_lack_no_more_than_it_does(entry):
    negatives = chunk_samples(read_chunk(entry, CONFIG), CONFIG, np.random.default_rng(0))[1:]
    assert negatives
    for negative in negatives:
        assert (negative.label, negative.kind) == (0, "chunk beside")
        middle = negative.hu[12:24, 16:20, 16:20]
        assert (middle > -800).any()  # the vessel
    assert all(n.hu[18, 18, 18] != 40 for n in negatives)


def test_a_chunk_without_anything_else_gives_the_nodule_alone(tmp_path):
    empty = np.full((32, 48, 48), -850, np.int16)
    entry = write_chunk(tmp_path / "LIDC-IDRI-0001_002.npz", hu=empty)
    assert len(chunk_samples(read_chunk(entry, CONFIG), CONFIG, np.random.default_rng(0))) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spacing_zyx": np.array([2.5, 0.0, 0.7])}, "three positive lengths"),
        ({"spacing_zyx": np.array([2.5, 0.7])}, "three positive lengths"),
        ({"centre_zyx": np.array([40.0, 20.0, 20.0])}, "inside the chunk"),
        ({"centre_zyx": np.array([np.nan, 20.0, 20.0])}, "inside the chunk"),
        ({"diameter_mm": np.inf}, "positive length"),
        ({"hu": np.zeros((4, 4), np.int16)}, "one shape"),
    ],
)
def test_unusable_chunks_are_refused(tmp_path, changes, message):
    entry = write_chunk(tmp_path / "LIDC-IDRI-0001_003.npz", **changes)
    with pytest.raises(InputError, match=message):
        read_chunk(entry, CONFIG)


def test_a_narrowed_cube_keeps_a_box_and_repeats_its_border():
    cube = np.random.default_rng(1).normal(size=(36, 36, 36)).astype(np.float32)
    widths = set()
    for seed in range(20):
        made = narrow(cube, 1.25, np.random.default_rng(seed))
        same = [np.flatnonzero((made == cube).all(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
        assert made.shape == cube.shape
        kept = [np.flatnonzero((made == cube).any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
        low, high = [k[0] for k in kept], [k[-1] + 1 for k in kept]
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        assert np.array_equal(made[box], cube[box])
        padding = [(a, 36 - b) for a, b in zip(low, high, strict=True)]
        assert np.array_equal(made, np.pad(cube[box], padding, mode="edge"))
        widths.add(high[1] - low[1])
        del same
    assert 22 <= min(widths) <= max(widths) <= 32  # 29 to 39 mm
