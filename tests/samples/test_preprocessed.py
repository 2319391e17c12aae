"""A scan is preprocessed once, and again when it, its name or the settings change."""

import dataclasses

import numpy as np
import pytest
import SimpleITK as sitk

from gcnn_cli.errors import InputError
from gcnn_cli.labels.entries import ScanEntry
from gcnn_cli.labels.index import read_index
from gcnn_cli.phantom import write_phantom
from gcnn_cli.samples import preprocessed
from gcnn_cli.samples.preprocessed import preprocess_scan
from gcnn_cli.samples.sample import SampleConfig
from gcnn_cli.scan.resample import as_image
from gcnn_cli.scan.volume import Volume

FAST = SampleConfig(spacing_mm=4.0, side=12, candidates_per_scan=0, transplants_per_scan=0, shams_per_scan=0)


@pytest.fixture(scope="module")
def entry(phantom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_phantom(phantom, folder)
    return read_index([folder]).scans[0]


def test_a_scan_is_preprocessed_once(entry, tmp_path, monkeypatch):
    config = SampleConfig(spacing_mm=3.0, side=12, candidates_per_scan=30, transplants_per_scan=4, shams_per_scan=2)
    fresh = preprocess_scan(entry, config, seed=0)
    stored = preprocess_scan(entry, config, seed=0, cache=tmp_path)
    monkeypatch.setattr(preprocessed, "_preprocess", None)
    again = preprocess_scan(entry, config, seed=0, cache=tmp_path)
    assert isinstance(again.hu, np.memmap)
    for scan in (stored, again):
        for name in ("hu", "to_world", "candidates", "places", "pieces"):
            assert np.array_equal(getattr(scan, name), getattr(fresh, name))
    for other in (dataclasses.replace(config, candidates_per_scan=31), config):
        with pytest.raises(TypeError):  # other settings make another entry
            preprocess_scan(entry, other, seed=int(other is config), cache=tmp_path)


def test_a_damaged_cache_entry_is_named(entry, tmp_path):
    config = SampleConfig(spacing_mm=3.0, side=12, candidates_per_scan=30, transplants_per_scan=0, shams_per_scan=0)
    preprocess_scan(entry, config, 0, tmp_path)
    (rest,), (note,) = tmp_path.glob("*/rest.npz"), tmp_path.glob("seen-*")
    for path, content in ((rest, rest.read_bytes()[:-100]), (rest, b"\0" * 50), (note, b"\xff")):
        path.write_bytes(content)
        with pytest.raises(InputError, match="damaged cache entry; remove it"):
            preprocess_scan(entry, config, 0, tmp_path)


def test_a_changed_file_is_another_scan(phantom, tmp_path):
    write_phantom(phantom, tmp_path / "data")
    config = SampleConfig(spacing_mm=4.0, side=12, candidates_per_scan=30, transplants_per_scan=0, shams_per_scan=0)
    (entry,) = read_index([tmp_path / "data"]).scans
    before = preprocess_scan(entry, config, 0, tmp_path / "cache")
    changed = dataclasses.replace(phantom.volume, hu=phantom.volume.hu + np.int16(7))
    write_phantom(dataclasses.replace(phantom, volume=changed), tmp_path / "data", overwrite=True)
    after = preprocess_scan(entry, config, 0, tmp_path / "cache")
    assert abs(float(after.hu.mean()) - float(before.hu.mean()) - 7) < 0.5


def test_the_voxels_of_a_header_may_have_another_name(phantom, tmp_path):
    (tmp_path / "data").mkdir()
    header, voxels = tmp_path / "data" / "scan.mhd", tmp_path / "data" / "voxels.raw"
    sitk.WriteImage(as_image(phantom.volume), str(header))
    header.with_suffix(".raw").rename(voxels)
    header.write_text(header.read_text().replace("scan.raw", "voxels.raw"))
    (entry,) = read_index([tmp_path / "data"]).scans
    before = preprocess_scan(entry, FAST, 0, tmp_path / "cache")
    voxels.write_bytes((np.frombuffer(voxels.read_bytes(), np.int16) + np.int16(7)).tobytes())
    after = preprocess_scan(entry, FAST, 0, tmp_path / "cache")
    assert abs(float(after.hu.mean()) - float(before.hu.mean()) - 7) < 0.5


def test_two_series_of_a_folder_do_not_share_a_note(phantom, tmp_path):
    """A second series that was changed was taken for the first, which had not been, and kept its old voxels."""
    volumes = {"first": phantom.volume, "second": phantom.volume}

    class Series(ScanEntry):
        def read(self):
            return volumes[self.name]

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1.dcm").touch()
    first, second = (Series(tmp_path / "data", name, "p", True) for name in volumes)
    before = [preprocess_scan(entry, FAST, 0, tmp_path / "cache") for entry in (first, second)]
    hu = phantom.volume.hu + np.int16(7)
    volumes["second"] = Volume(hu, phantom.volume.to_world, dataclasses.replace(phantom.volume.source, sha256="new"))
    (tmp_path / "data" / "1.dcm").write_bytes(b"changed")
    after = [preprocess_scan(entry, FAST, 0, tmp_path / "cache") for entry in (first, second)]
    gains = [float(a.hu.mean()) - float(b.hu.mean()) for a, b in zip(after, before, strict=True)]
    assert np.allclose(gains, [0, 7], atol=0.5)


def test_voxels_around_the_lungs_lie_where_they_did(entry):
    config = SampleConfig(spacing_mm=3.0, side=12, candidates_per_scan=30, transplants_per_scan=0, shams_per_scan=0)
    scan = preprocess_scan(entry, config, seed=0)
    marks = np.array([mark[:3] for mark in entry.nodules])
    index = scan.index_zyx(marks)
    assert np.allclose(scan.position_mm(index), marks)
    solid = [n for n, mark in enumerate(entry.nodules) if mark[3] > 8]
    assert all(scan.hu[tuple(np.round(index[n]).astype(int))] > -750 for n in solid)
