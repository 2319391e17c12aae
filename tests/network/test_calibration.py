"""What a score means: a probability, and a rate of false positives."""

import pytest

from gcnn_cli.errors import ModelError
from gcnn_cli.network.contract import Calibration


def test_a_probability_means_a_rate_of_false_positives():
    calibration = Calibration(operating_points=((1.0, 0.5), (4.0, 0.2), (16.0, 0.01)))
    assert calibration.fp_per_scan(0.5) == pytest.approx(1)
    assert calibration.fp_per_scan(0.2) == pytest.approx(4)
    assert calibration.fp_per_scan(1 / 3) == pytest.approx(2)  # odds of 1/2: half of the way from 1 to 1/4
    rates = [calibration.fp_per_scan(p) for p in (0.0, 0.005, 0.01, 0.1, 0.3, 0.6, 1.0)]
    assert rates == sorted(rates, reverse=True)
    assert (rates[0], rates[-1]) == (pytest.approx(16), pytest.approx(1))  # bounds: nothing was counted beyond
    assert Calibration().fp_per_scan(0.5) is None


def test_recalibrated_scores_keep_what_they_are_averaged_over():
    mapped = Calibration(2.0, 1.0, average_over="Oh").mapped(0.5, -1.0, ((1.0, 0.3),))
    assert (mapped.slope, mapped.offset, mapped.threshold) == (1.0, -0.5, 0.3)
    assert mapped.average_over == "Oh"
    with pytest.raises(ModelError, match="unknown group"):
        Calibration(average_over="C9")
