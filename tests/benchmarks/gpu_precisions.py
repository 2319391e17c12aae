"""The network in every precision that a device may compute in, those that detection does not use too."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gcnn_cli.network.devices import has_fast_bfloat16
from gcnn_cli.network.inference import Scorer, make_scorer
from gcnn_cli.network.weights import TrainedModel

WITHOUT_TF32 = "float32 without TF32"


def precisions_of(device: torch.device) -> tuple[str, ...]:
    """Their names.

    A GPU's convolutions in float32 round their factors to TF32, unless torch is told otherwise. What takes seconds for
    each patch, as it is emulated, is left out on a CPU: float16, and bfloat16 where there are no instructions for it.
    """
    if device.type == "cpu":
        return ("float32", "bfloat16") if has_fast_bfloat16(device) else ("float32",)
    return ("float32", *((WITHOUT_TF32,) if device.type == "cuda" else ()), "bfloat16", "float16")


@contextmanager
def computing_in(precision: str) -> Iterator[None]:
    """Turn TF32 off where the precision is without it."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = before and precision != WITHOUT_TF32
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def scorer_in(precision: str, model: TrainedModel, device: torch.device) -> Scorer:
    """A scorer that averages as the weights are calibrated."""
    average_over = model.calibration.average_over
    scorer = make_scorer(model.network, device, average_over=average_over, bfloat16=precision == "bfloat16")
    if precision != "float16":
        return scorer
    return Scorer(InFloat16(scorer.network), device, False, average_over, scorer.group)


class InFloat16(nn.Module):
    """A network that computes in float16; detection knows float32 and bfloat16 alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.float16):
            y: Tensor = self.network(x)
        return y
