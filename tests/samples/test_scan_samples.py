"""Negatives keep clear of every mark, measured or not."""

from types import SimpleNamespace

import numpy as np
import pytest

from gcnn_cli.labels.entries import ScanEntry
from gcnn_cli.labels.marks import UNMEASURED_MM
from gcnn_cli.samples.preprocessed import PreprocessedScan
from gcnn_cli.samples.sample import SampleConfig
from gcnn_cli.samples.scan_samples import scan_samples, scored_samples


@pytest.mark.parametrize(("diameter", "radius"), [(UNMEASURED_MM, 5.0), (6.0, 3.0)])
def test_a_negative_keeps_5_mm_from_the_rim_of_a_mark(diameter, radius, tmp_path):
    candidates = np.array([[0, 0, radius + 4.9], [0, 0, radius + 5.1]])  # (z, y, x) in voxels of 1 mm
    none = np.zeros((0, 3), np.int64)
    scan = PreprocessedScan(
        np.zeros((8, 8, 8), np.int16), np.eye(4)[[2, 1, 0, 3]], candidates, none, none[:, 0], none, 1.0, candidates
    )
    entry = ScanEntry(tmp_path / "a.mha", "a", "p", labelled=True, excluded=((0.0, 0.0, 0.0, diameter),))
    assert len(scan_samples(scan, entry, [], SampleConfig(), 0)) == 1
    assert len(scored_samples(scan, entry, SampleConfig())) == 1


# Place and piece of a transplant, then of three shams, (z, y, x) in voxels of 1 mm.
PLACES = np.array([[0, 0, 30], [0, 0, 40], [0, 0, 50], [0, 0, 60]])
PIECES = np.array([[0, 0, 30], [0, 9, 40], [0, 9, 50], [0, 9, 60]])
TRANSPLANTS = SampleConfig(side=8, transplants_per_scan=1, shams_per_scan=3, cavity_share=0.5)


def transplants(tmp_path, *marks, excluded=(), held_out=False):
    """Return the samples of a noisy scan with these marks, the ordinary ones left out, and their cubes."""
    noise = np.random.default_rng(0).integers(-900, -700, (12, 24, 80)).astype(np.int16)
    scan = PreprocessedScan(
        noise, np.eye(4)[[2, 1, 0, 3]], np.zeros((0, 3)), PLACES, np.zeros(4, np.int64), PIECES, 1.0, np.zeros((0, 3))
    )
    entry = ScanEntry(tmp_path / "a.mha", "a", "p", labelled=True, nodules=marks, excluded=excluded)
    cube = np.random.default_rng(1).integers(-600, 100, (8, 8, 8)).astype(np.int16)
    donor = SimpleNamespace(
        turned=lambda axes, flips: (np.flip(cube.transpose(axes), flips), np.full((8, 8, 8), 0.5)),
        patient="d", diameter_mm=4.0, noise=None,
    )  # fmt: skip
    made = scan_samples(scan, entry, [donor], TRANSPLANTS, 0, held_out=held_out)
    return {(s.kind, int(s.hu.astype(int).sum())) for s in made if s.kind in ("transplant", "sham")}


def test_shams_and_transplants_keep_away_from_marks_and_leave_the_others_as_they_are(tmp_path):
    everything = transplants(tmp_path)
    assert sorted(kind for kind, _ in everything) == ["sham", "sham", "sham", "transplant"]
    marks = (
        ((50.0, 0.0, 0.0, 6.0), "sham"),
        ((60.0, 16.0, 0.0, 6.0), "sham"),
        ((30.0, -7.0, 0.0, 6.0), "transplant"),
    )
    for mark, lost in marks:
        for left in (transplants(tmp_path, mark), transplants(tmp_path, excluded=(mark,))):
            assert left < everything
            assert [kind for kind, _ in everything - left] == [lost]
    assert transplants(tmp_path, (50.0, -8.1, 0.0, 6.0)) == everything


def test_a_test_set_keeps_its_transplants(tmp_path):
    """They hold a nodule wherever they lie, and finished experiments were tested on them."""
    near = [(50.0, 0.0, 0.0, 6.0), (30.0, 0.0, 0.0, 6.0)]
    assert sorted(kind for kind, _ in transplants(tmp_path, *near, held_out=True)) == ["sham", "sham", "transplant"]
