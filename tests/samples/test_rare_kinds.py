"""Ground glass and cavities are made from solid nodules: what changes, what stays, how often."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from gcnn_cli.errors import InputError
from gcnn_cli.labels.entries import ScanEntry
from gcnn_cli.samples.donors import Donor
from gcnn_cli.samples.preprocessed import PreprocessedScan
from gcnn_cli.samples.rare_kinds import RareKinds, vary_kind
from gcnn_cli.samples.sample import SampleConfig
from gcnn_cli.samples.scan_samples import scan_samples
from gcnn_cli.samples.transplant import soften

SIDE = 24
LUNG, TISSUE = -850.0, 50.0


def ball(diameter):
    distance = np.linalg.norm(np.indices((SIDE,) * 3) - (SIDE - 1) / 2, axis=0)
    mask = distance < diameter / 2
    return np.where(mask, TISSUE, LUNG).astype(np.float32), mask


@pytest.mark.parametrize("seed", range(5))
def test_ground_glass_keeps_a_part_of_the_contrast_and_the_lung_as_it_is(seed):
    hu, mask = ball(12)
    faint = vary_kind(hu, mask, RareKinds(1.0, 0.0), np.random.default_rng(seed))
    contrast = (faint[mask] - LUNG) / (TISSUE - LUNG)
    assert np.ptp(contrast) < 1e-5
    assert 0.25 <= contrast[0] <= 0.6
    np.testing.assert_array_equal(faint[~mask], hu[~mask])


@pytest.mark.parametrize("seed", range(5))
def test_a_cavity_is_air_or_lung_in_the_middle_of_a_wall_that_stays(seed):
    hu, mask = ball(16)
    hollow = vary_kind(hu, mask, RareKinds(0.0, 1.0), np.random.default_rng(seed))
    depth = ndimage.distance_transform_edt(mask)
    assert (hollow[mask] < -500).mean() > 0.03
    assert np.median(hollow[mask & (depth < 1.5)]) > -100
    away = ~ndimage.binary_dilation(mask, iterations=4)  # the cavity's edge is soft
    np.testing.assert_array_equal(hollow[away], hu[away])


def test_a_small_nodule_is_never_hollow():
    hu, mask = ball(7)
    assert vary_kind(hu, mask, RareKinds(0.0, 1.0), np.random.default_rng(0)) is hu


def test_the_shares_are_kept():
    hu, mask = ball(12)
    rng = np.random.default_rng(0)
    made = [vary_kind(hu, mask, RareKinds(0.3, 0.2), rng) for _ in range(400)]
    middle = np.array([m[SIDE // 2, SIDE // 2, SIDE // 2] for m in made])
    rim = np.array([m[mask].max() for m in made])
    assert np.mean(rim < 0) == pytest.approx(0.3, abs=0.06)  # ground glass: fainter everywhere
    assert np.mean((middle < -700) & (rim > 0)) == pytest.approx(0.2, abs=0.06)


def test_transplants_are_varied_by_their_shares_and_made_again_alike(tmp_path):
    hu, mask = ball(12)
    weight = soften(mask).astype(np.float16)
    cube = hu.astype(np.int16)
    donor = Donor(cube, mask, np.full(3, (SIDE - 1) / 2), "p", "d", 0, SIDE, cube, weight, None, 12.0)
    places = np.full((40, 3), 20, np.int64)
    scan = PreprocessedScan(
        np.full((40, 40, 40), LUNG, np.int16), np.eye(4)[[2, 1, 0, 3]], np.zeros((0, 3)), places,
        places[:, 0] % 3, places, 1.0, np.zeros((0, 3)),
    )  # fmt: skip
    entry = ScanEntry(tmp_path / "a.mha", "a", "q", labelled=False)
    plain = SampleConfig(side=SIDE, transplants_per_scan=40, shams_per_scan=0)
    peaks = {}
    for name, config in (("plain", plain), ("rare", replace(plain, ground_glass_share=0.5))):
        samples = scan_samples(scan, entry, [donor], config, 0)
        assert len(samples) == 40
        assert all(np.array_equal(s.hu, s.hu) for s in samples)
        peaks[name] = np.array([s.hu.max() for s in samples])
    assert (peaks["plain"] == TISSUE).all()
    assert np.mean(peaks["rare"] < 0) == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("shares", [(-0.1, 0.0), (0.0, -0.1), (0.7, 0.4)])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(InputError, match="ground_glass_share"):
        SampleConfig(ground_glass_share=shares[0], cavity_share=shares[1])
