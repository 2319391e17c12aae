"""Negatives keep clear of every mark, measured or not."""

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
