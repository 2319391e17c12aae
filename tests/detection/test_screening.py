"""Where a score takes several passes, one pass chooses which candidates are scored in full."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import make_network

from gcnn_cli.detection.detector import DetectionConfig, make_detector
from gcnn_cli.detection.pipeline import detect
from gcnn_cli.errors import InputError
from gcnn_cli.network.committee import Committee
from gcnn_cli.network.contract import Calibration, InputSpec
from gcnn_cli.network.inference import make_scorer
from gcnn_cli.network.weights import TrainedModel
from gcnn_cli.scan.reading import read_volume

CPU = torch.device("cpu")
SPEC = InputSpec(side=8)


@pytest.fixture(scope="module")
def volume(sample):
    return read_volume(sample)


@pytest.fixture(scope="module")
def committee():
    network = Committee([make_network("O"), make_network("O")]).eval()
    return TrainedModel("two", network, SPEC, Calibration(average_over="Oh"), sha256="abc")


def found(volume, model, screened, unlikely=0.0):
    detector = make_detector(model, CPU, config=DetectionConfig(screened=screened, unlikely=unlikely))
    report = detect(volume, detector, threshold=0.0)
    return {n.position_mm: n.probability for n in report.nodules}, report


@pytest.fixture(scope="module")
def twelve(volume, committee):
    """What is found if the best twelve candidates are scored in full, and the report."""
    return found(volume, committee, screened=12)


def test_passes_are_members_times_looks():
    single, two = make_network("O"), Committee([make_network("O"), make_network("O")]).eval()
    assert make_scorer(single, CPU).passes == 1
    assert make_scorer(single, CPU, average_over="Oh").passes == 2
    assert make_scorer(two, CPU, average_over="Oh").passes == 4


def test_the_screen_is_the_first_members_score_of_the_patch_as_it_is():
    two = Committee([make_network("O"), make_network("O")]).eval()
    patches = torch.randn(5, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    screened = make_scorer(two, CPU, average_over="Oh", bfloat16=False).screen([patches])
    alone = make_scorer(two.members[0], CPU, bfloat16=False).score([patches])
    np.testing.assert_allclose(screened, alone, atol=1e-6)


def test_those_that_pass_have_their_full_score(volume, committee, twelve):
    every, _ = found(volume, committee, screened=10_000)
    few, report = twelve
    assert len(few) <= 12 < len(every)
    assert report.candidates > 12  # the report counts what was proposed
    assert report.options["screened"] == 12
    # A finding that was merged into a better one may stand alone now, so not every place is among the first.
    shared = [place for place in few if place in every]
    assert len(shared) > 6
    assert all(few[place] == pytest.approx(every[place], abs=1e-6) for place in shared)


def test_the_unlikely_are_not_scored_in_full(volume, committee, twelve):
    """By the probability of the first pass; what is left keeps its full score."""
    detector = make_detector(committee, CPU, config=DetectionConfig(screened=12))
    screen, many = detector.scorer.screen, twelve[0]
    logits = []

    def watched(batches):
        logits.append(screen(batches))
        best = np.sort(logits[0])[::-1]
        between = float(1 / (1 + np.exp(-(best[5] + best[6]) / 2)))
        object.__setattr__(detector.config, "unlikely", between)
        return logits[0]

    object.__setattr__(detector.scorer, "screen", watched)
    few = {n.position_mm: n.probability for n in detect(volume, detector, threshold=0.0).nodules}
    assert 0 < len(few) <= 6 < len(many)
    shared = [place for place in few if place in many]
    assert len(shared) > 3
    assert all(few[place] == pytest.approx(many[place], abs=1e-6) for place in shared)


def test_a_single_pass_is_not_made_twice(volume, committee):
    plain = dataclasses.replace(committee, network=make_network("O"), calibration=Calibration())
    assert found(volume, plain, screened=1)[0] == found(volume, plain, screened=10_000)[0]


def test_no_candidates_at_all_is_refused():
    with pytest.raises(InputError, match="screened"):
        DetectionConfig(screened=0)
    with pytest.raises(InputError, match="unlikely"):
        DetectionConfig(unlikely=1.0)
