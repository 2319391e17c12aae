"""The same scan, weights and options give the same file on one machine, however many threads work on it."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from gcnn_cli.detection.detector import DetectionConfig, Detector
from gcnn_cli.detection.patches import patch_batches
from gcnn_cli.detection.pipeline import detect
from gcnn_cli.detection.proposals import ProposalConfig, load_proposer
from gcnn_cli.network.devices import has_fast_bfloat16
from gcnn_cli.network.inference import make_scorer
from gcnn_cli.network.weights import TrainedModel, load_model
from gcnn_cli.output.csv_format import luna16_csv, rich_csv
from gcnn_cli.scan.resample import resample

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    return load_model("octahedral")


def test_threads_do_not_change_a_byte_of_the_report(phantom, model):
    config = DetectionConfig(proposals=ProposalConfig(kept=20))
    detector = Detector(model, make_scorer(model.network, CPU), load_proposer(CPU), config)
    reports = []
    for count in (1, 2):
        torch.set_num_threads(count)
        reports.append(detect(phantom.volume, detector, threshold=0.0))
    assert reports[0].nodules == reports[1].nodules
    assert len(reports[0].nodules) > 5
    assert rich_csv(reports[0]) == rich_csv(reports[1])
    assert luna16_csv(reports[0]) == luna16_csv(reports[1])


@pytest.fixture(scope="module")
def scores(phantom, model):
    """Logits of places in the phantom, by precision, threads and batch size."""
    grid = resample(phantom.volume, model.input.spacing_mm)
    places = [nodule.position_mm for nodule in phantom.nodules]
    places += [tuple(np.add(place, 9.0)) for place in places]

    def score(bfloat16: bool, threads: int = 1, batch_size: int = 32):
        torch.set_num_threads(threads)
        scorer = make_scorer(model.network, CPU, bfloat16=bfloat16)
        return scorer.score(patch_batches(grid, places, model.input, batch_size))

    return score


@pytest.mark.parametrize("bfloat16", [True, False])
def test_threads_do_not_change_a_bit_of_a_score(scores, bfloat16):
    if bfloat16 and not has_fast_bfloat16(CPU):
        pytest.skip("no fast bfloat16 here, so detection does not use it")
    assert np.array_equal(scores(bfloat16, threads=1), scores(bfloat16, threads=2))


@pytest.mark.parametrize("size", [1, 7])
@pytest.mark.parametrize("bfloat16", [True, False])
def test_the_batch_size_does_not_change_a_bit_of_a_score(scores, bfloat16, size):
    if bfloat16 and not has_fast_bfloat16(CPU):
        pytest.skip("no fast bfloat16 here, so detection does not use it")
    assert np.array_equal(scores(bfloat16), scores(bfloat16, batch_size=size))


def test_a_row_of_the_last_layer_does_not_depend_on_the_others(model):
    """Why the batch size does not matter in bfloat16: the last sum is no matrix product."""
    network = make_scorer(model.network, CPU, bfloat16=False).network
    maps = torch.randn(40, network.linear.in_features, generator=torch.Generator().manual_seed(0))
    network.layers, network.order = torch.nn.Identity(), 1
    with torch.inference_mode():
        whole = network(maps)
        assert all(
            torch.equal(whole[n : n + size], network(maps[n : n + size])) for n in range(32) for size in (1, 3, 8)
        )
    assert np.isfinite(whole.numpy()).all()
