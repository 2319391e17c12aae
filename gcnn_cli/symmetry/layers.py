"""Group convolution on Z^d x G. Cohen & Welling 2016, arXiv:1602.07576, equations 10 and 11;
Winkels & Cohen 2018, arXiv:1804.04656, for three dimensions.

    lifting   y(g, x) = sum_u     f(x + u)    w(g^-1 u)            + b
    group     y(g, x) = sum_{h,u} f(h, x + u) w(g^-1 h, g^-1 u)    + b
    transposed y(g, s x + o) = sum_h f(h, x) w(g^-1 h, g^-1 o)     + b,    o in a block of side s
    law       conv(L_g f) = L_g conv(f) for every g

Both are an indexing step, which expands each kernel over the group, and then an ordinary
convolution. The index is computed once from `rotate` and the Cayley table.

A bias belongs to a field, not to one of its |G| oriented copies: untied, training breaks the law. The same
holds for the norm's scale, shift and statistics (`norms`).

Every layer names its group first and raises ModelError for a map of another one (`shapes`).

Axes: B batch, C fields, G group, then the grid, in two or three dimensions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcnn_cli.errors import ModelError
from gcnn_cli.symmetry.actions import rotate
from gcnn_cli.symmetry.groups import Group
from gcnn_cli.symmetry.shapes import check_features, check_image

_CONVOLUTION = {2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {2: F.conv_transpose2d, 3: F.conv_transpose3d}
_PLAIN: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
# Channels innermost: convolutions, norms and pools are several times faster than with the grid innermost.
LAYOUT = {2: torch.channels_last, 3: torch.channels_last_3d}


class _EquivariantConv(nn.Module):
    """The common part of lifting and group convolution: a kernel, an index that expands it, one bias per field."""

    expansion: Tensor
    bias: nn.Parameter | None

    def __init__(
        self, group: Group, fields_in: int, fields_out: int, side: int, copies: int, pad: bool, stride: int, bias: bool
    ) -> None:
        super().__init__()
        if side % stride:
            raise ModelError(f"a kernel of side {side} cannot move by {stride}: blocks of that side must tile it")
        if pad and side % 2 == 0:
            raise ModelError(
                f"a kernel of even side {side} cannot be padded evenly: it would shift the map. Use an odd side"
            )
        self.group = group
        self.fields_in = fields_in
        self.fields_out = fields_out
        self.stride = stride
        self.padding = side // 2 if pad else 0
        fan_in = fields_in * copies * side**group.dimension
        self.weight = nn.Parameter(torch.empty(fields_out, fields_in, copies, *(side,) * group.dimension))
        self.register_parameter("bias", nn.Parameter(torch.zeros(fields_out)) if bias else None)
        nn.init.normal_(self.weight, std=(2.0 / fan_in) ** 0.5)

    def expanded_weight(self) -> Tensor:
        """Return the kernel in every orientation, [C' * G, C * copies, *kernel], for an ordinary convolution."""
        fields_out, fields_in, copies, *kernel = self.weight.shape
        full = self.weight.flatten(2)[:, :, self.expansion.flatten()]
        full = full.unflatten(2, (self.group.order, copies, *kernel)).transpose(1, 2)
        expanded: Tensor = full.reshape(fields_out * self.group.order, fields_in * copies, *kernel)
        return expanded

    def expanded_bias(self) -> Tensor | None:
        """Return the bias of every channel, [C' * G]: one value per field, repeated over its orientations."""
        return None if self.bias is None else self.bias.repeat_interleave(self.group.order)

    @torch.no_grad()
    def export(self) -> nn.Conv2d | nn.Conv3d:
        """Return the same function of channels, [B, C * copies, *grid] -> [B, C' * G, *grid], as torch's own layer.

        Its kernel is expanded once, for inference; it does not follow later changes of this layer.
        """
        weight, bias = self.expanded_weight(), self.expanded_bias()
        outputs, inputs, side = weight.shape[:3]
        plain = _PLAIN[self.group.dimension](
            inputs, outputs, side, stride=self.stride, padding=self.padding, bias=bias is not None
        )
        plain.weight = nn.Parameter(weight)
        plain.bias = None if bias is None else nn.Parameter(bias)
        return plain

    def extra_repr(self) -> str:
        return (
            f"{self.group.name}, {self.fields_in}, {self.fields_out}, side={self.weight.shape[-1]},"
            f" stride={self.stride}, padding={self.padding}, bias={self.bias is not None}"
        )

    def _convolve(self, channels: Tensor) -> Tensor:
        convolution, layout = _CONVOLUTION[self.group.dimension], LAYOUT[self.group.dimension]
        # `to` sets the strides of a single input channel too, by which torch chooses the layout of the result.
        weight = self.expanded_weight().to(memory_format=layout)
        y = convolution(channels, weight, self.expanded_bias(), stride=self.stride, padding=self.padding)
        features: Tensor = y.unflatten(1, (-1, self.group.order))
        return features


class LiftingConv(_EquivariantConv):
    """Image [B, C, *grid] -> feature map [B, C', G, *grid]: one kernel in every orientation."""

    def __init__(
        self,
        group: Group,
        channels: int,
        fields_out: int,
        side: int = 3,
        pad: bool = True,
        *,
        stride: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(group, channels, fields_out, side, copies=1, pad=pad, stride=stride, bias=bias)
        self.register_buffer("expansion", lifting_index(group, side), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        check_image(x, self.group, self.fields_in)
        return self._convolve(x)


class GroupConv(_EquivariantConv):
    """Feature map [B, C, G, *grid] -> [B, C', G, *grid].

    Without padding the kernel may be even, and as large as the map: it then has a weight for each place
    of the map and still commutes with the group.
    """

    def __init__(
        self,
        group: Group,
        fields_in: int,
        fields_out: int,
        side: int = 3,
        pad: bool = True,
        *,
        stride: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(group, fields_in, fields_out, side, copies=group.order, pad=pad, stride=stride, bias=bias)
        self.register_buffer("expansion", group_index(group, side), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        check_features(x, self.group, self.fields_in)
        return self._convolve(x.flatten(1, 2))


class TransposedGroupConv(GroupConv):
    """Feature map [B, C, G, *grid] -> [B, C', G, *(side * grid)]: every place becomes a block of side^d places.

    The kernel's side is the step between blocks. Blocks do not overlap, and every place of the finer map has the same
    number of terms.
    """

    def __init__(self, group: Group, fields_in: int, fields_out: int, side: int = 2, *, bias: bool = True) -> None:
        super().__init__(group, fields_in, fields_out, side, pad=False, stride=side, bias=bias)
        nn.init.normal_(self.weight, std=(2.0 / (fields_in * group.order)) ** 0.5)  # one term of each channel

    def forward(self, x: Tensor) -> Tensor:
        check_features(x, self.group, self.fields_in)
        dimension = self.group.dimension
        weight = self.expanded_weight().transpose(0, 1).contiguous(memory_format=LAYOUT[dimension])
        y = _TRANSPOSED[dimension](x.flatten(1, 2), weight, self.expanded_bias(), stride=self.stride)
        features: Tensor = y.unflatten(1, (-1, self.group.order))
        return features

    def export(self) -> nn.Conv2d | nn.Conv3d:
        """Raise ModelError: torch's own layer of this kind has its channels in the opposite order."""
        raise ModelError("a transposed convolution has no ordinary convolution to be exported to")


def lifting_index(group: Group, side: int) -> Tensor:
    """Return positions in one kernel [*kernel], as [G, 1, *kernel]: row g holds the positions g^-1 u."""
    kernel = torch.arange(side**group.dimension).view(1, *(side,) * group.dimension)
    return torch.stack([rotate(kernel, matrix) for matrix in group.matrices])


def group_index(group: Group, side: int) -> Tensor:
    """Return positions in one kernel [G, *kernel], as [G, G, *kernel]: row g holds the positions (g^-1 h, g^-1 u)."""
    shape = (group.order, *(side,) * group.dimension)
    kernel = torch.arange(group.order * side**group.dimension).view(shape)
    rows = [rotate(kernel[group.product[group.inverse[g]].tolist()], group.matrices[g]) for g in range(group.order)]
    return torch.stack(rows)
