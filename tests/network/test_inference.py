"""Scores: the same in any batch, and within any memory."""

import itertools

import numpy as np
import pytest
import torch
from conftest import make_network
from network.patches import patches

from gcnn_cli.errors import DeviceError, ModelError, is_out_of_memory
from gcnn_cli.network.devices import choose_device, has_fast_bfloat16
from gcnn_cli.network.inference import FoldedGCNN, Scorer, make_scorer
from gcnn_cli.symmetry.actions import act_on_image
from gcnn_cli.symmetry.groups import make_group

CPU = torch.device("cpu")


def test_bfloat16_stays_near_float32(network):
    x = patches("O", torch.float32, count=64)
    exact = make_scorer(network, CPU, bfloat16=False).score([x])
    fast = make_scorer(network, CPU, bfloat16=True).score([x])
    assert np.abs(fast - exact).max() < 0.02 * np.abs(exact).max()
    assert isinstance(has_fast_bfloat16(CPU), bool)


def test_batches_do_not_matter(network):
    scorer = make_scorer(network, CPU, bfloat16=False)
    x = patches("O", torch.float32, count=10)
    assert np.allclose(scorer.score([x]), scorer.score(x.split(3)), atol=1e-6)
    assert scorer.score([]).shape == (0,)


def test_test_time_pooling_makes_the_plain_network_invariant():
    network, x = make_network("trivial"), patches("trivial", torch.float32)
    scorer = make_scorer(network, CPU, average_over="O", bfloat16=False)
    group = make_group("O")
    scores = np.stack([scorer.score([act_on_image(x, g, group)]) for g in range(group.order)])
    assert np.ptp(scores, axis=0).max() < 1e-5
    copies = [network(act_on_image(x, g, group)) for g in range(group.order)]
    assert np.allclose(scores[0], torch.stack(copies).mean(0).detach().numpy(), atol=1e-5)


@pytest.mark.gpu
def test_the_gpu_agrees_with_the_cpu(network):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    x = patches("O", torch.float32, count=16)
    on_gpu = make_scorer(network, choose_device("cuda"), bfloat16=False).score([x])
    assert np.allclose(on_gpu, make_scorer(network, CPU, bfloat16=False).score([x]), atol=1e-3)


@pytest.mark.gpu
def test_patches_on_the_gpu_are_scored_where_they_are(network):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    scorer = make_scorer(network, choose_device("cuda"), bfloat16=False)
    x = patches("O", torch.float32, count=16)
    assert np.array_equal(scorer.score([x.cuda()]), scorer.score([x]))


def test_scores_that_are_not_finite_are_an_error(network):
    with torch.no_grad():
        network.linear.weight.fill_(3e38)
    with pytest.raises(ModelError, match="not finite"):
        make_scorer(network, CPU, bfloat16=False).score([1e4 * patches("O", torch.float32)])


class Small(torch.nn.Module):
    """A network on a device whose memory holds `most` patches."""

    def __init__(self, network, most):
        super().__init__()
        self.network, self.most, self.sizes = network, most, []

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.network(x)


@pytest.mark.parametrize("average_over", ["trivial", "C4"])
@pytest.mark.parametrize("most", [1, 3, 5, 64])
def test_out_of_memory_halves_the_batch_with_a_warning(network, caplog, most, average_over):
    x = patches("O", torch.float32, count=23)
    batches = x.split(10)
    small = Small(FoldedGCNN(network).eval(), most)
    scorer = Scorer(small, CPU, bfloat16=False, average_over=average_over)
    with caplog.at_level("WARNING", logger="gcnn"):
        scores = scorer.score(batches)
    whole = make_scorer(network, CPU, average_over=average_over, bfloat16=False).score([x])
    assert np.allclose(scores, whole, atol=1e-5)
    sizes = [8, 4, 2, 1]  # a CPU computes eight at once
    tried = sizes[: next((n for n, size in enumerate(sizes) if size <= most)) + 1]
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == [
        f"cpu ran out of memory with {a} patches per batch; continuing with {b}" for a, b in itertools.pairwise(tried)
    ]
    assert sum(size > most for size in small.sizes) == len(warnings)  # a size that failed is not tried again


def test_too_little_memory_for_a_single_patch_is_an_error(network):
    scorer = Scorer(Small(FoldedGCNN(network).eval(), 0), CPU, bfloat16=False)
    with pytest.raises(DeviceError, match="with a single patch; free some memory"):
        scorer.score([patches("O", torch.float32, count=4)])


class Greedy(Small):
    """A network that requests more memory than any machine has for more than `most` patches."""

    def forward(self, x):
        if len(x) > self.most:
            torch.empty(1 << 60, dtype=torch.uint8)
        return self.network(x)


def test_a_cpu_out_of_memory_halves_the_batch_too(network, caplog):
    x = patches("O", torch.float32, count=10)
    scorer = Scorer(Greedy(FoldedGCNN(network).eval(), 3), CPU, bfloat16=False)
    with caplog.at_level("WARNING", logger="gcnn"):
        scores = scorer.score([x])
    assert np.allclose(scores, make_scorer(network, CPU, bfloat16=False).score([x]), atol=1e-5)
    assert len(caplog.records) == 2  # 8 patches, 4, 2
    with pytest.raises(DeviceError, match="cpu ran out of memory with a single patch"):
        Scorer(Greedy(FoldedGCNN(network).eval(), 0), CPU, bfloat16=False).score([x])


class Defective(torch.nn.Module):
    def forward(self, x):
        raise RuntimeError("size mismatch")


def test_other_errors_of_torch_stay_defects():
    with pytest.raises(RuntimeError, match="size mismatch"):
        Scorer(Defective(), CPU, bfloat16=False).score([patches("O", torch.float32)])
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ValueError("out of memory"))
