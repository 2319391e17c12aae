"""Logits of samples, without augmentation."""

import numpy as np
import torch
from numpy.typing import NDArray

from gcnn_cli.network.committee import Network
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.network.inference import make_scorer
from gcnn_cli.samples.sample import Sample
from gcnn_cli.training.augment import plain_batch


def score_samples(
    network: Network, samples: list[Sample], spec: InputSpec, device: torch.device, average_over: str = "trivial"
) -> NDArray[np.float64]:
    """Return the logits [N] of the samples' central patches as detection computes them: averaged over a group.

    network: in eval mode; it stays where it is
    """
    if not samples:
        return np.zeros(0)
    scorer = make_scorer(network, device, average_over=average_over)
    batches = (plain_batch(samples[n : n + 64], spec) for n in range(0, len(samples), 64))
    return scorer.score(batches).astype(float)
