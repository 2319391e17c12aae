"""Transplants have the noise of their scan: with more or less of it, a network could recognize them."""

import numpy as np
import pytest
from scipy import ndimage

from gcnn_cli.samples.transplant import match_noise, noise_levels

LUNG = -850.0


def noisy_lung(deviation, correlation_vox, seed, shape=(32, 32, 32)):
    """Return lung with noise of a standard deviation in HU and a correlation length in voxels."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), correlation_vox)
    return (LUNG + deviation * noise / noise.std()).astype(np.float32)


def fine_noise(cube):
    return (cube - ndimage.gaussian_filter(cube, 1.0, mode="nearest")).std()


@pytest.mark.parametrize("deviation", [40.0, 25.0, 12.0])
@pytest.mark.parametrize("correlation_vox", [0.5, 0.8])
def test_a_donor_comes_to_the_noise_of_its_host(deviation, correlation_vox):
    donor = noisy_lung(25.0, 0.6, seed=1)
    host = noisy_lung(deviation, correlation_vox, seed=2)
    levels = noise_levels(donor)
    matched = match_noise(donor, levels, host)
    reachable = max(fine_noise(host), levels.hu[-1])
    assert fine_noise(matched) == pytest.approx(reachable, rel=0.15)


def test_noise_that_is_right_stays():
    donor = noisy_lung(25.0, 0.6, seed=1)
    assert np.allclose(match_noise(donor, noise_levels(donor), donor), donor, atol=1e-3)


def test_a_quiet_donor_takes_no_edges_of_its_host():
    """The host's noise continues through the nodule; a vessel of the host does not."""
    donor, host = noisy_lung(5.0, 0.6, seed=1), noisy_lung(20.0, 0.6, seed=2)
    host[:, 16, 16] = 100.0
    matched = match_noise(donor, noise_levels(donor), host)
    assert (matched - donor)[:, 16, 16].max() < 3.5 * fine_noise(noisy_lung(20.0, 0.6, seed=2))


def test_without_lung_nothing_is_changed():
    tissue = np.full((24, 24, 24), 40, np.float32)
    assert noise_levels(tissue) is None
    donor = noisy_lung(25.0, 0.6, seed=1)
    assert match_noise(donor, noise_levels(donor), tissue) is donor
