"""Group convolution on Z^d x G. Cohen & Welling 2016, arXiv:1602.07576, equations 10 and 11;
Winkels & Cohen 2018, arXiv:1804.04656, for three dimensions.

    lifting    y(g, x) = sum_u     f(s x + d u)    w(g^-1 u)          + b
    group      y(g, x) = sum_{h,u} f(h, s x + d u) w(g^-1 h, g^-1 u)  + b
    fieldwise  y(g, x) = sum_u     f(g, s x + d u) w(g^-1 u)          + b
    separable  fieldwise after group with a kernel of one place (Knigge et al. 2022, arXiv:2110.13059)
    transposed y(g, s x + o) = sum_h f(h, x) w(g^-1 h, g^-1 o)        + b,    o in a block of side s
    law        conv(L_g f) = L_g conv(f) for every g

s is the stride and d the dilation. All are an indexing step, which expands each kernel over the group (`expansion`),
and then an ordinary convolution. In eval mode the expanded kernel is kept until the weights change.

Sides, strides and dilations are one number, or one for each axis, (z, y, x) or (y, x). The group must turn them into
themselves, and strided windows must begin and end with the padded grid: a layer refuses what would break the law.

A bias belongs to a field, not to one of its |G| oriented copies: untied, training breaks the law. The same
holds for the norm's scale, shift and statistics (`norms`).

Every layer names its group first and raises ModelError for a map of another one (`shapes`).

Axes: B batch, C fields, G group, then the grid, in two or three dimensions.
"""

from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gcnn_cli.errors import ModelError
from gcnn_cli.symmetry.expansion import KeptExpansion, group_index, is_constant, lifting_index
from gcnn_cli.symmetry.groups import Group
from gcnn_cli.symmetry.shapes import Sides, check_features, check_image, check_turns, check_windows, compact, per_axis

_CONVOLUTION = {2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {2: F.conv_transpose2d, 3: F.conv_transpose3d}
_PLAIN: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
# Channels innermost: convolutions, norms and pools are several times faster than with the grid innermost.
LAYOUT = {2: torch.channels_last, 3: torch.channels_last_3d}

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class _EquivariantConv(nn.Module):
    """The common part of all convolutions: a kernel, an index that expands it, one bias per field."""

    expansion: Tensor
    bias: nn.Parameter | None

    def __init__(
        self,
        group: Group,
        fields_in: int,
        fields_out: int,
        side: Sides,
        copies: int,
        pad: bool,
        *,
        stride: Sides = 1,
        dilation: Sides = 1,
        padding_mode: PaddingMode = "zeros",
        bias: bool = True,
    ) -> None:
        super().__init__()
        dimension = group.dimension
        if fields_in < 1 or fields_out < 1:
            raise ModelError(f"a layer needs fields on both sides, got {fields_in} and {fields_out}")
        if padding_mode not in get_args(PaddingMode):
            raise ModelError(f"padding_mode must be one of {', '.join(get_args(PaddingMode))}, got {padding_mode!r}")
        self.group = group
        self.fields_in = fields_in
        self.fields_out = fields_out
        self.side = per_axis(side, dimension, "the side of a kernel")
        self.stride = per_axis(stride, dimension, "a stride")
        self.dilation = per_axis(dilation, dimension, "a dilation")
        check_turns(group, self.side, "the kernel")
        check_turns(group, self.stride, "the stride")
        check_turns(group, self.dilation, "the dilation")
        # Voxels from the first to the last value of a kernel, both counted.
        self.span = tuple(d * (n - 1) + 1 for n, d in zip(self.side, self.dilation, strict=True))
        if pad and any(span % 2 == 0 for span in self.span):
            of = f"side {compact(self.side)}" if set(self.dilation) == {1} else f"span {compact(self.span)}"
            raise ModelError(f"a kernel of even {of} cannot be padded evenly: it would shift the map. Use an odd side")
        self.padding = tuple(span // 2 if pad else 0 for span in self.span)
        self.padding_mode = padding_mode
        self._channel_groups = 1  # of the ordinary convolution
        self._kept = KeptExpansion()
        fan_in = fields_in * copies
        for n in self.side:
            fan_in *= n
        self.weight = nn.Parameter(torch.empty(fields_out, fields_in, copies, *self.side))
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

        Its kernel is expanded once, for inference; it does not follow later changes of this layer. torch's layer does
        not check that strided windows fit the grid.
        """
        weight, bias = self.expanded_weight(), self.expanded_bias()
        plain = _PLAIN[self.group.dimension](
            weight.shape[1] * self._channel_groups,
            weight.shape[0],
            self.side,  # type: ignore[arg-type] # a tuple of the dimension's length, here and below
            stride=self.stride,  # type: ignore[arg-type]
            padding=self.padding,  # type: ignore[arg-type]
            dilation=self.dilation,  # type: ignore[arg-type]
            groups=self._channel_groups,
            bias=bias is not None,
            padding_mode=self.padding_mode,
        )
        plain.weight = nn.Parameter(weight)
        plain.bias = None if bias is None else nn.Parameter(bias)
        return plain

    def train(self, mode: bool = True) -> "_EquivariantConv":
        """Set the mode, as every module does; training mode frees the memory of a kept expansion."""
        if mode:
            self._kept.drop()
        super().train(mode)
        return self

    def extra_repr(self) -> str:
        text = f"{self.group.name}, {self.fields_in}, {self.fields_out}, side={compact(self.side)},"
        text += f" stride={compact(self.stride)}, padding={compact(self.padding)}"
        if set(self.dilation) != {1}:
            text += f", dilation={compact(self.dilation)}"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return f"{text}, bias={self.bias is not None}"

    def _kernel(self) -> Tensor:
        """Return the expanded kernel as the convolution takes it; in eval mode without gradients it is kept."""
        if self.training or not is_constant(self.weight):
            return self._laid_out()
        return self._kept.of(self.weight, self._laid_out)

    def _laid_out(self) -> Tensor:
        # `to` sets the strides of a single input channel too, by which torch chooses the layout of the result.
        return self.expanded_weight().to(memory_format=LAYOUT[self.group.dimension])

    def _convolve(self, channels: Tensor) -> Tensor:
        check_windows(channels.shape[2:], self.padding, self.span, self.stride)
        padding = self.padding
        if self.padding_mode != "zeros" and any(padding):
            both_sides = [p for p in reversed(padding) for _ in range(2)]
            channels, padding = F.pad(channels, both_sides, mode=self.padding_mode), (0,) * self.group.dimension
        y: Tensor = _CONVOLUTION[self.group.dimension](
            channels,
            self._kernel(),
            self.expanded_bias(),
            stride=self.stride,
            padding=padding,
            dilation=self.dilation,
            groups=self._channel_groups,
        )
        features: Tensor = y.unflatten(1, (-1, self.group.order))
        return features


class LiftingConv(_EquivariantConv):
    """Image [B, C, *grid] -> feature map [B, C', G, *grid]: one kernel in every orientation.

    side:         of the kernel (default: 3)
    pad:          half a kernel on each side, so that the grid keeps its size at stride 1 (default: True)
    padding_mode: what lies beyond the grid: zeros, reflect, replicate or circular (default: zeros)
    stride, dilation, bias: as in torch's convolutions (default: 1, 1, True)

    Weight [C', C, 1, *kernel], bias [C']. Raises ModelError for what would break the law, when it is made or called.
    """

    def __init__(
        self,
        group: Group,
        channels: int,
        fields_out: int,
        side: Sides = 3,
        pad: bool = True,
        *,
        stride: Sides = 1,
        dilation: Sides = 1,
        padding_mode: PaddingMode = "zeros",
        bias: bool = True,
    ) -> None:
        options: dict[str, Any] = {"stride": stride, "dilation": dilation, "padding_mode": padding_mode, "bias": bias}
        super().__init__(group, channels, fields_out, side, copies=1, pad=pad, **options)
        self.register_buffer("expansion", lifting_index(group, side), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        check_image(x, self.group, self.fields_in)
        return self._convolve(x)


class GroupConv(_EquivariantConv):
    """Feature map [B, C, G, *grid] -> [B, C', G, *grid].

    Without padding the kernel may be even, and as large as the map: it then has a weight for each place
    of the map and still commutes with the group.

    Weight [C', C, G, *kernel], bias [C']; options and errors as those of LiftingConv.
    """

    def __init__(
        self,
        group: Group,
        fields_in: int,
        fields_out: int,
        side: Sides = 3,
        pad: bool = True,
        *,
        stride: Sides = 1,
        dilation: Sides = 1,
        padding_mode: PaddingMode = "zeros",
        bias: bool = True,
    ) -> None:
        options: dict[str, Any] = {"stride": stride, "dilation": dilation, "padding_mode": padding_mode, "bias": bias}
        super().__init__(group, fields_in, fields_out, side, copies=group.order, pad=pad, **options)
        self.register_buffer("expansion", group_index(group, side), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        check_features(x, self.group, self.fields_in)
        return self._convolve(x.flatten(1, 2))


class FieldwiseConv(_EquivariantConv):
    """Feature map [B, C, G, *grid] -> [B, C, G, *grid]: one kernel for each field, in every orientation.

    Fields and orientations are not mixed. Weight [C, 1, 1, *kernel], bias [C]; options and errors as those of
    LiftingConv.
    """

    def __init__(
        self,
        group: Group,
        fields: int,
        side: Sides = 3,
        pad: bool = True,
        *,
        stride: Sides = 1,
        dilation: Sides = 1,
        padding_mode: PaddingMode = "zeros",
        bias: bool = True,
    ) -> None:
        options: dict[str, Any] = {"stride": stride, "dilation": dilation, "padding_mode": padding_mode, "bias": bias}
        super().__init__(group, 1, fields, side, copies=1, pad=pad, **options)
        self._channel_groups = fields * group.order
        self.register_buffer("expansion", lifting_index(group, side), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        check_features(x, self.group, self.fields_out)
        return self._convolve(x.flatten(1, 2))


class SeparableGroupConv(nn.Module):
    """Feature map [B, C, G, *grid] -> [B, C', G, *grid]: a mixture over fields and group, then one over the grid.

    mix:    GroupConv with a kernel of one place, without bias
    spread: FieldwiseConv, to which all options belong

    The product of the two kernels has fewer values than a full one: C' (C G + |kernel|) instead of C' C G |kernel|,
    and the arithmetic shrinks by about the same factor.
    """

    def __init__(
        self,
        group: Group,
        fields_in: int,
        fields_out: int,
        side: Sides = 3,
        pad: bool = True,
        *,
        stride: Sides = 1,
        dilation: Sides = 1,
        padding_mode: PaddingMode = "zeros",
        bias: bool = True,
    ) -> None:
        super().__init__()
        options: dict[str, Any] = {"stride": stride, "dilation": dilation, "padding_mode": padding_mode, "bias": bias}
        self.group = group
        self.fields_in = fields_in
        self.fields_out = fields_out
        self.mix = GroupConv(group, fields_in, fields_out, 1, bias=False)
        self.spread = FieldwiseConv(group, fields_out, side, pad, **options)
        nn.init.normal_(self.mix.weight, std=(1.0 / (fields_in * group.order)) ** 0.5)  # no ReLU follows it

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.spread(self.mix(x))
        return y


class TransposedGroupConv(GroupConv):
    """Feature map [B, C, G, *grid] -> [B, C', G, *(side * grid)]: every place becomes a block of side^d places.

    The kernel's side is the step between blocks. Blocks do not overlap, and every place of the finer map has the same
    number of terms.
    """

    def __init__(self, group: Group, fields_in: int, fields_out: int, side: Sides = 2, *, bias: bool = True) -> None:
        super().__init__(group, fields_in, fields_out, side, pad=False, stride=side, bias=bias)
        nn.init.normal_(self.weight, std=(2.0 / (fields_in * group.order)) ** 0.5)  # one term of each channel

    def forward(self, x: Tensor) -> Tensor:
        check_features(x, self.group, self.fields_in)
        convolution = _TRANSPOSED[self.group.dimension]
        y: Tensor = convolution(x.flatten(1, 2), self._kernel(), self.expanded_bias(), stride=self.stride)
        features: Tensor = y.unflatten(1, (-1, self.group.order))
        return features

    def export(self) -> nn.Conv2d | nn.Conv3d:
        """Raise ModelError: torch's own layer of this kind has its channels in the opposite order."""
        raise ModelError("a transposed convolution has no ordinary convolution to be exported to")

    def _laid_out(self) -> Tensor:
        return self.expanded_weight().transpose(0, 1).contiguous(memory_format=LAYOUT[self.group.dimension])
