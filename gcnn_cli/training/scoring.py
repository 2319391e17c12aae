"""Logits of samples, without augmentation."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gcnn_cli.network.architecture import GCNN
from gcnn_cli.network.committee import Network
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.network.devices import autocast
from gcnn_cli.network.inference import make_scorer
from gcnn_cli.samples.sample import Sample
from gcnn_cli.training.augment import plain_batch


@torch.no_grad()
def score_samples(network: GCNN, samples: list[Sample], spec: InputSpec, batch_size: int = 64) -> Tensor:
    """Compute the logits [N] of the samples' central patches on the network's device and return them on the CPU."""
    device = next(network.parameters()).device
    logits = [torch.zeros(0)]
    for first in range(0, len(samples), batch_size):
        batch = plain_batch(samples[first : first + batch_size], spec)
        with autocast(device):
            scored = network(batch.to(device, memory_format=torch.channels_last_3d))
        logits.append(scored.float().cpu())
    return torch.cat(logits)


def score_averaged(
    network: Network, samples: list[Sample], spec: InputSpec, average_over: str, device: torch.device
) -> NDArray[np.float64]:
    """Return the logits [N] of the samples' central patches as detection computes them: averaged over a group.

    network: in eval mode; it stays where it is
    """
    if not samples:
        return np.zeros(0)
    scorer = make_scorer(network, device, average_over=average_over)
    batches = (plain_batch(samples[n : n + 64], spec) for n in range(0, len(samples), 64))
    return scorer.score(batches).astype(float)
