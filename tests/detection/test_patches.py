"""Patches are centered on the candidate, and turn with it."""

import numpy as np
import pytest
import torch

from gcnn_cli.detection.patches import cut_patch, patch_batches, scale_hu
from gcnn_cli.errors import ModelError
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.scan.volume import Volume, make_affine

SPEC = InputSpec(side=4)


def test_an_odd_patch_is_centered_on_its_voxel():
    hu = np.zeros((9, 9, 9), np.int16)
    hu[4, 5, 6] = 7
    assert cut_patch(hu, np.array([4, 5, 6]), 3)[1, 1, 1] == 7
    assert cut_patch(hu, np.array([4.4, 4.6, 6.3]), 3)[1, 1, 1] == 7


def test_an_even_patch_is_centered_between_voxels():
    hu = np.arange(10)[:, None, None] * np.ones((1, 10, 10), int)
    assert cut_patch(hu.astype(np.int16), np.array([4.5, 4.5, 4.5]), 4)[:, 0, 0].tolist() == [3, 4, 5, 6]
    assert cut_patch(hu.astype(np.int16), np.array([4.2, 4.5, 4.5]), 4)[:, 0, 0].tolist() == [3, 4, 5, 6]


def test_air_lies_beyond_the_scan():
    hu = np.ones((4, 4, 4), np.int16)
    corner = cut_patch(hu, np.zeros(3), 5)
    assert (corner == -1024).sum() == 125 - 27
    assert (cut_patch(hu, np.array([50.0, 0, 0]), 4) == -1024).all()


def test_the_window_is_scaled_to_plus_minus_one():
    hu = torch.tensor([-3000.0, SPEC.hu_low, (SPEC.hu_low + SPEC.hu_high) / 2, SPEC.hu_high, 3000.0])
    assert scale_hu(hu, SPEC).tolist() == [-1, -1, 0, 1, 1]


def test_batches_keep_the_order():
    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, 400, (20, 20, 20)).astype(np.int16)
    grid = Volume(hu, make_affine(np.ones(3), np.eye(3)[:, ::-1], np.array([5.0, 6.0, 7.0])))
    indices = rng.uniform(3, 16, (7, 3))
    positions = [tuple(p) for p in grid.position_mm(indices)]
    together = torch.cat(list(patch_batches(grid, positions, SPEC, 3)))
    assert together.shape == (7, 1, 4, 4, 4)
    for patch, index in zip(together, indices, strict=True):
        expected = scale_hu(torch.from_numpy(cut_patch(hu, index, 4)).float(), SPEC)
        assert torch.equal(patch[0], expected)
    assert list(patch_batches(grid, [], SPEC, 3)) == []


@pytest.mark.parametrize("changes", [{"spacing_mm": 0}, {"side": 2}, {"hu_low": 500}])
def test_an_impossible_contract_is_refused(changes):
    with pytest.raises(ModelError):
        InputSpec(**changes)
