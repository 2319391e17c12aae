"""Logits of samples, without augmentation."""

import torch
from torch import Tensor

from gcnn_cli.network.architecture import GCNN
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.network.devices import autocast
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
