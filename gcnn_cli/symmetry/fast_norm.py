"""An optimization of `norms`: normalization of fields on channels, without a copy of the map.

torch's norm with one statistic for each of C * G channels reads a channels-last map at the memory's speed. With one
for each of C fields it first copies the map, several times. The fast one is therefore used twice: for the channels'
moments, from which the field's follow, and with the field's values in place of each channel's.

    y  = s (x - mean) + b,                       s  = w / sqrt(var + eps)
    dx = s (g - mean(g) - x' mean(g x')),        x' = (x - mean) / sqrt(var + eps),   means over the field

The two means in dx are the gradients of shift and scale, divided by the number of values.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def normalize(x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Normalize channels [B, C * G, *grid] by the values [C] of their fields."""
    order = x.shape[1] // len(mean)
    return F.batch_norm(
        x, _each(mean, order), _each(variance, order), _each(weight, order), _each(bias, order), eps=eps
    )


def normalize_by_batch(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, share: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize channels [B, C * G, *grid] by their own moments; return also these, mean and variance [C].

    weight, bias: scale and shift of each field [C]
    share:        mean of a tensor over all processes that hold a part of the batch
    """
    y, mean, variance = _NormalizeByBatch.apply(x, weight, bias, eps, share)  # type: ignore[no-untyped-call]
    return y, mean, variance


class _NormalizeByBatch(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, share: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        order = x.shape[1] // len(weight)
        means, variances = (moments.view(-1, order) for moments in _moments(x, weight, bias, eps))
        mean = share(means.mean(dim=1))
        variance = share((variances + (means - mean[:, None]) ** 2).mean(dim=1))
        y = normalize(x, mean, variance, weight, bias, eps)
        ctx.save_for_backward(x, mean, variance, weight)
        ctx.order, ctx.eps, ctx.share = order, eps, share
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, variance, weight = ctx.saved_tensors
        order, eps = ctx.order, ctx.eps
        # The sums alone take a tenth of the time of sums and gradient in float32, and no less in bfloat16.
        with_gradient = not _sums_are_fast(x)
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
            [with_gradient, True, True],
        )
        to_weight, to_bias = (sums.view(-1, order).sum(dim=1) for sums in per_channel[1:])
        count = x.numel() // len(to_weight)
        scale = weight / torch.sqrt(variance + eps)
        # The part that passes through the statistics, s (mean(g) + x' mean(g x')), is a batch norm of x, too.
        by_scale, by_shift = scale * ctx.share(to_weight / count), scale * ctx.share(to_bias / count)
        if with_gradient:
            dx = per_channel[0]
            dx -= normalize(x, mean, variance, by_scale, by_shift, eps)
        else:
            dx = normalize(x, mean, variance, -by_scale, -by_shift, eps)
            dx.addcmul_(gradients[0], _each(scale, order).view(-1, *[1] * (x.ndim - 2)))
        return dx, to_weight, to_bias, None, None


def _moments(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each channel [C * G], in float32 for bfloat16 maps."""
    if _sums_are_fast(x):
        return torch.batch_norm_update_stats(x, None, None, 0.0)
    # With parameters, though they do not matter here: bfloat16 maps then get moments in float32.
    order = x.shape[1] // len(weight)
    _, means, inverse_deviations = torch.native_batch_norm(
        x, _each(weight, order), _each(bias, order), None, None, True, 0.0, eps
    )
    return means, (inverse_deviations**-2 - eps).clamp(min=0)


def _sums_are_fast(x: Tensor) -> bool:
    """Return True where sums over the map can be had without a new map, in a tenth of the time; not to a compiler."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and not torch.compiler.is_compiling()


def _each(values: Tensor, order: int) -> Tensor:
    """Repeat the values [C] of fields for all of their channels [C * G]."""
    return values.repeat_interleave(order)
