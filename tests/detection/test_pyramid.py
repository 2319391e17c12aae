"""Half the resolution and back."""

import numpy as np
import pytest

from gcnn_cli.detection.pyramid import double, halve


@pytest.mark.parametrize("shape", [(6, 8, 10), (7, 9, 5), (1, 4, 3), (5, 1, 2), (2, 3, 1)])
@pytest.mark.parametrize("dtype", [np.int16, np.float32, bool])
def test_a_coarse_voxel_is_the_mean_of_its_eight(shape, dtype):
    """An odd axis's last plane counts twice."""
    image = np.random.default_rng(0).integers(-1024, 3000, shape).astype(dtype)
    even = np.pad(image.astype(float), [(0, n % 2) for n in shape], mode="edge")
    expected = even.reshape([half for n in even.shape for half in (n // 2, 2)]).mean(axis=(1, 3, 5))
    halved = halve(image)
    assert halved.dtype == np.float32
    assert np.allclose(halved, expected, rtol=0, atol=1e-3)


def test_a_large_sum_of_int16_does_not_wrap():
    assert np.array_equal(halve(np.full((4, 4, 4), 32767, np.int16)), np.full((2, 2, 2), 32767, np.float32))


@pytest.mark.parametrize("shape", [(6, 8, 10), (7, 9, 5)])
def test_doubling_gives_each_fine_voxel_its_coarse_one(shape):
    coarse = np.random.default_rng(0).random([-(-n // 2) for n in shape]) < 0.5
    fine = double(coarse, shape)
    assert fine.shape == shape
    assert np.array_equal(fine, coarse[np.ix_(*(np.arange(n) // 2 for n in shape))])
