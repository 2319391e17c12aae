"""Operating points are counted on the candidates that detection scores, in the places where it scores them."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import make_network

from gcnn_cli.detection import pipeline
from gcnn_cli.detection.detector import DetectionConfig, Detector
from gcnn_cli.detection.proposals import ProposalConfig, load_proposer
from gcnn_cli.labels.index import read_index
from gcnn_cli.network.contract import Calibration, InputSpec
from gcnn_cli.network.inference import make_scorer
from gcnn_cli.network.weights import TrainedModel
from gcnn_cli.phantom import write_phantom
from gcnn_cli.samples import preprocessed
from gcnn_cli.samples.detection_candidates import candidates_key
from gcnn_cli.samples.prepare import prepare
from gcnn_cli.samples.preprocessed import preprocess_scan
from gcnn_cli.samples.sample import SampleConfig
from gcnn_cli.samples.split import SplitConfig

SPEC = InputSpec(spacing_mm=3.0, side=8)
CONFIG = SampleConfig(spacing_mm=3.0, side=12, candidates_per_scan=30, transplants_per_scan=0, shams_per_scan=0)


@pytest.fixture(scope="module")
def folder(phantom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("labeled")
    write_phantom(phantom, folder)
    return folder


@pytest.fixture(scope="module")
def detector():
    """A detector that scores 25 candidates, with a random network on a coarser grid than the proposals'."""
    cpu = torch.device("cpu")
    network = make_network("trivial")
    model = TrainedModel("small", network, SPEC, Calibration(), sha256="abc")
    config = DetectionConfig(proposals=ProposalConfig(kept=25))
    return Detector(model, make_scorer(network, cpu, bfloat16=False), load_proposer(cpu), config)


def scored_by_detection(folder, detector, monkeypatch):
    """Positions [N, 3] in LPS mm that `detect` cuts patches at."""
    cut = []

    def recording(grid, positions, *rest):
        cut.extend(positions)
        return pipeline_batches(grid, positions, *rest)

    pipeline_batches = pipeline.patch_batches
    monkeypatch.setattr(pipeline, "patch_batches", recording)
    (entry,) = read_index([folder]).scans
    pipeline.detect(entry.read(), detector)
    return np.array(cut)


def test_a_preprocessed_scan_holds_the_candidates_that_detection_scores(folder, detector, monkeypatch):
    (entry,) = read_index([folder]).scans
    scan = preprocess_scan(entry, CONFIG, 0, detector=detector)
    expected = scored_by_detection(folder, detector, monkeypatch)
    assert len(expected) == 25
    np.testing.assert_allclose(scan.position_mm(scan.scored), expected, atol=1e-9)
    assert len(scan.candidates) == 30  # the negatives of training: more than detection scores
    np.testing.assert_allclose(scan.candidates[:25], scan.scored)


def test_they_are_those_of_detections_grid_whatever_the_grid_of_training(folder, detector, monkeypatch):
    (entry,) = read_index([folder]).scans
    scan = preprocess_scan(entry, dataclasses.replace(CONFIG, spacing_mm=4.0), 0, detector=detector)
    np.testing.assert_allclose(
        scan.position_mm(scan.scored), scored_by_detection(folder, detector, monkeypatch), atol=1e-9
    )


def test_the_cache_keeps_them_by_the_settings_that_decide_them(folder, detector, tmp_path, monkeypatch):
    (entry,) = read_index([folder]).scans
    without = preprocess_scan(entry, CONFIG, 0, tmp_path)
    assert without.scored.shape == (0, 3)
    stored = preprocess_scan(entry, CONFIG, 0, tmp_path, detector)
    other = dataclasses.replace(detector, config=DetectionConfig(proposals=ProposalConfig(kept=20)))
    assert len(preprocess_scan(entry, CONFIG, 0, tmp_path, other).scored) == 20
    monkeypatch.setattr(preprocessed, "_preprocess", None)
    again = preprocess_scan(entry, CONFIG, 0, tmp_path, detector)
    assert np.array_equal(stored.scored, again.scored)
    assert len(list(tmp_path.glob("*/hu.npy"))) == 1  # voxels are stored once
    assert candidates_key(detector) != candidates_key(other)


def test_they_become_samples_away_from_every_mark(folder, detector, phantom, monkeypatch):
    prepared = prepare([folder], CONFIG, SplitConfig(share=0.0), detector=detector)
    positions = scored_by_detection(folder, detector, monkeypatch)
    away = np.ones(len(positions), bool)
    for nodule in phantom.nodules:
        away &= np.linalg.norm(positions - nodule.position_mm, axis=1) > nodule.diameter_mm / 2 + 5
    assert 0 < away.sum() < len(positions)
    assert len(prepared.scored) == away.sum()
    assert {(s.kind, s.label) for s in prepared.scored} == {("candidate", 0)}
    assert prepare([folder], CONFIG, SplitConfig(share=0.0)).scored == []
