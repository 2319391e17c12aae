"""Batch normalization with statistics, scale and shift per field (Ioffe & Szegedy 2015, arXiv:1502.03167).

    y = s (x - mean) + b,   s = w / sqrt(var + eps),   mean and var over batch, orientations and grid of a field

A field's orientations share all of it: one value per orientation would break the law as soon as it is trained.

torch's norm with one statistic for C * G channels reads a channels-last map at the memory's speed; with one for C
fields it first copies the map, several times. So the fast one is used twice: for the channels' moments, of which
the field's follow, and with the field's values in place of each channel's. The gradient is the textbook's

    dx = s (g - mean(g) - x' mean(g x')),   x' = (x - mean) / sqrt(var + eps),   means over the field

whose two sums are the gradients of shift and scale.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Share = Callable[[Tensor], Tensor]


def _alone(value: Tensor) -> Tensor:
    return value


class FieldNorm(nn.Module):
    """Normalizes feature maps [B, C, G, *grid], a field at a time.

    share, sharers: for a map whose batch is spread over `sharers` processes, each with as large a part: the mean of a
    tensor over all of them.
    """

    def __init__(self, fields: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(fields)  # holds the values, and checks them when they are loaded
        self.share: Share = _alone
        self.sharers = 1

    def forward(self, x: Tensor) -> Tensor:
        norm, order = self.norm, x.shape[2]
        assert norm.running_mean is not None  # for the type checker: BatchNorm3d tracks
        assert norm.running_var is not None
        channels = x.flatten(1, 2)
        if not self.training:
            return _normalized(channels, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps).view_as(
                x
            )
        count = x.numel() // x.shape[1] * self.sharers
        y, mean, variance = _Normalize.apply(channels, norm.weight, norm.bias, order, norm.eps, self.share)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            assert norm.num_batches_tracked is not None
            assert norm.momentum is not None
            norm.num_batches_tracked += 1
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(variance * (count / max(count - 1, 1)), norm.momentum)
        features: Tensor = y.view_as(x)
        return features

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """What the layer does in eval mode: y = scale * x + shift, per field [C]."""
        norm = self.norm
        assert norm.running_var is not None  # for the type checker: BatchNorm3d tracks
        assert norm.running_mean is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return scale, norm.bias - scale * norm.running_mean


class _Normalize(torch.autograd.Function):
    """Channels [B, C * G, *grid], weight and bias [C] -> the same normalized, mean and variance [C]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, order: int, eps: float, share: Share
    ) -> tuple[Tensor, Tensor, Tensor]:
        # With parameters, though they do not matter here: bfloat16 maps then get moments in float32.
        _, means, inverse_deviations = torch.native_batch_norm(
            x, _each(weight, order), _each(bias, order), None, None, True, 0.0, eps
        )
        means = means.view(-1, order)
        variances = (inverse_deviations.view(-1, order) ** -2 - eps).clamp(min=0)
        mean = share(means.mean(dim=1))
        variance = share((variances + (means - mean[:, None]) ** 2).mean(dim=1))
        y = _normalized(x, mean, variance, weight, bias, eps)
        ctx.save_for_backward(x, mean, variance, weight)
        ctx.order, ctx.eps, ctx.share = order, eps, share
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, variance, weight = ctx.saved_tensors
        order, eps = ctx.order, ctx.eps
        per_channel = torch.ops.aten.native_batch_norm_backward(
            gradients[0],
            x,
            _each(weight, order),
            _each(mean, order),
            _each(variance, order),
            None,
            None,
            False,
            eps,
            [True, True, True],
        )
        dx = per_channel[0]
        to_weight, to_bias = (sums.view(-1, order).sum(dim=1) for sums in per_channel[1:])
        count = x.numel() // len(to_weight)
        scale = weight / torch.sqrt(variance + eps)
        # What the statistics pass on, s (mean(g) + x' mean(g x')), is a batch norm of x with other values.
        dx -= _normalized(
            x, mean, variance, scale * ctx.share(to_weight / count), scale * ctx.share(to_bias / count), eps
        )
        return dx, to_weight, to_bias, None, None, None


def _normalized(x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Channels [B, C * G, *grid] normalized with the values [C] of their fields."""
    order = x.shape[1] // len(mean)
    return F.batch_norm(
        x, _each(mean, order), _each(variance, order), _each(weight, order), _each(bias, order), eps=eps
    )


def _each(values: Tensor, order: int) -> Tensor:
    """The values [C] of fields for all of their channels [C * G]."""
    return values.repeat_interleave(order)
