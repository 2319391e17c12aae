"""Training and validation compute in bfloat16 if the device multiplies it natively, and in float32 otherwise."""

import numpy as np
import pytest
import torch

from gcnn_cli.network import devices, inference
from gcnn_cli.network.architecture import GCNN, NetworkConfig
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.samples.sample import Sample
from gcnn_cli.training.loop import TrainConfig, train_network

CONFIG = TrainConfig(
    network=NetworkConfig(group="trivial", fields=(2,), pool_after=(1,), side=8, head_fields=2),
    input=InputSpec(side=8),
    steps=1,
    batch_size=2,
    validate_every=1,
)


def sample(label, n):
    hu = np.random.default_rng(n).normal(0 if label else -800, 200, (12, 12, 12)).astype(np.int16)
    return Sample(lambda: hu, 12, label, "cube" if label else "candidate", f"p{n}", f"s{n}", 0, 12)


@pytest.mark.parametrize(("native", "name"), [(True, "bfloat16"), (False, "float32")])
def test_bfloat16_is_used_only_where_it_is_native(monkeypatch, native, name):
    for module in (devices, inference):
        monkeypatch.setattr(module, "has_fast_bfloat16", lambda _: native)
    formats = {True: set(), False: set()}

    def record(kind):
        forward = kind.forward

        def recording(network, x):
            enabled = torch.is_autocast_enabled("cpu")
            formats[network.training].add(torch.get_autocast_dtype("cpu") if enabled else x.dtype)
            return forward(network, x)

        monkeypatch.setattr(kind, "forward", recording)

    record(GCNN)
    record(inference.FoldedGCNN)
    samples = [sample(n % 2, n) for n in range(4)]
    train_network(samples, samples, CONFIG, lambda _: None)
    expected = {getattr(torch, name)}
    assert formats == {True: expected, False: expected}  # in training, and in validation
    assert devices.precision_name(torch.device("cpu")) == name
