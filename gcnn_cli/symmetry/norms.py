"""Batch normalization with statistics, scale and shift per field (Ioffe & Szegedy 2015, arXiv:1502.03167).

    y = w (x - mean) / sqrt(var + eps) + b,   mean and var over batch, orientations and grid of a field

A field's orientations share all of it: one value per orientation would break the law as soon as it is trained.

`FieldNorm.definition` says the same in three lines of torch. Its copies of the map cost more than the norm itself;
`fast_norm` computes the same without them.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gcnn_cli.symmetry.fast_norm import normalize, normalize_by_batch
from gcnn_cli.symmetry.groups import Group
from gcnn_cli.symmetry.shapes import check_features

Share = Callable[[Tensor], Tensor]


def _alone(value: Tensor) -> Tensor:
    return value


class FieldNorm(nn.Module):
    """Batch normalization of feature maps [B, C, G, *grid], by field. Raises ModelError for another group or C.

    share, sharers: for a batch spread evenly over `sharers` processes. `share` returns the mean of a tensor over all
    of them.
    """

    def __init__(self, group: Group, fields: int) -> None:
        super().__init__()
        self.group = group
        self.norm = nn.BatchNorm3d(fields)  # holds the values, and checks them when they are loaded
        self.share: Share = _alone
        self.sharers = 1

    def definition(self, x: Tensor) -> Tensor:
        """Return what `forward` returns in a single process, with a field's orientations as one more axis of its grid.

        The copy is needed: for some strides torch 2.13 returns wrong gradients.
        """
        fields = x.contiguous().flatten(3).unsqueeze(-1)  # [B, C, G, N, 1]
        normalized: Tensor = self.norm(fields)
        return normalized.view_as(x)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        check_features(x, self.group, norm.num_features)
        assert norm.running_mean is not None  # for the type checker: BatchNorm3d tracks
        assert norm.running_var is not None
        channels = x.flatten(1, 2)
        if not self.training:
            y = normalize(channels, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)
            return y.view_as(x)
        y, mean, variance = normalize_by_batch(channels, norm.weight, norm.bias, norm.eps, self.share)
        count = x.numel() // norm.num_features * self.sharers
        with torch.no_grad():
            assert norm.num_batches_tracked is not None
            assert norm.momentum is not None
            norm.num_batches_tracked += 1
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(variance * (count / max(count - 1, 1)), norm.momentum)
        return y.view_as(x)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return scale and shift per field [C] in eval mode: y = scale * x + shift."""
        norm = self.norm
        assert norm.running_var is not None  # for the type checker: BatchNorm3d tracks
        assert norm.running_mean is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return scale, norm.bias - scale * norm.running_mean

    def extra_repr(self) -> str:
        return f"{self.group.name}, {self.norm.num_features}"
