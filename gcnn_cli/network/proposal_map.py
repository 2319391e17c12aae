"""The map of a proposal network over a whole scan, computed only where it is wanted.

The layers are computed one after the other, each in blocks of cells (4 x 4 x 4 voxels) whose values later layers need.
A block reads its neighbors' values from the layer before, so only a little of the first layers is computed twice.
Blocks far from the wanted places are left out. Kernels are expanded over the group once, with the norms folded in.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from gcnn_cli.network.devices import has_fast_bfloat16
from gcnn_cli.network.proposals import CELL, ProposalBlock, ProposalNetwork
from gcnn_cli.symmetry.layers import LAYOUT, TransposedGroupConv

Mask = NDArray[np.bool_]
Logits = NDArray[np.float32]

NOWHERE = -np.inf  # logit of places where the map was not computed
_BLOCK = 8  # cells along each side of a block
_BATCH = 4  # blocks at once: more do not stay in a processor's cache
_SLAB = 90  # cells along z whose maps are held at once: the lungs of most patients, in 360 mm
_PLACES = 2  # places of the map along each side of a cell


@dataclass(frozen=True, eq=False)
class _Layer:
    """A group convolution with its norm and ReLU, as an ordinary convolution."""

    weight: Tensor
    bias: Tensor
    stride: tuple[int, ...]
    transposed: bool

    def __call__(self, x: Tensor) -> Tensor:
        convolution = F.conv_transpose3d if self.transposed else F.conv3d
        y = convolution(x.to(self.weight.dtype), self.weight, self.bias, stride=self.stride)
        return y.relu_()


@dataclass(frozen=True, eq=False)
class ProposalMapper:
    """A proposal network in eval mode, ready on one device."""

    network: ProposalNetwork
    device: torch.device
    layers: tuple[_Layer, ...]

    @torch.inference_mode()
    def logits(
        self, image: NDArray[Any], wanted: Mask, beyond: float, scale: Callable[[Tensor], Tensor]
    ) -> tuple[Logits, NDArray[np.float64]]:
        """Return the logits [D', H', W'] of a scan and the voxel (z, y, x) of their first place.

        Places are 2 voxels apart.

        image:  [D, H, W]
        wanted: [D, H, W], with at least one true voxel; every place in a cell with a true voxel gets its logit, and
                places far from all of them are NOWHERE
        beyond: value of the image outside the scan
        scale:  from values of the image to those that the network takes; done block by block, to spare a scaled copy
        """
        corner, cells = _wanted_cells(wanted)
        parts = [
            self._slab(image, corner + np.array([CELL * step, 0, 0]), cells[step : step + _SLAB], beyond, scale)
            for step in range(0, len(cells), _SLAB)
        ]
        return np.concatenate(parts), np.asarray(corner + (CELL / _PLACES - 1) / 2, np.float64)

    def _slab(
        self,
        image: NDArray[Any],
        corner: NDArray[np.int64],
        cells: Mask,
        beyond: float,
        scale: Callable[[Tensor], Tensor],
    ) -> Logits:
        """Return the logits of the cells from a voxel on."""
        if not cells.any():
            return np.full([_PLACES * n for n in cells.shape], NOWHERE, np.float32)
        encode, *middle, decode = self._stages(scale)
        rings = len(middle) + 1  # rings of cells around the wanted ones that the layers reach
        blocks = -(-(np.array(cells.shape) + 2 * rings) // _BLOCK)
        size = tuple(int(n) * _BLOCK + 2 for n in blocks)
        margin = (self.network.config.receptive_field - CELL) // 2

        def cut(start: NDArray[np.int64], side: int) -> Tensor:
            return _cut_out(image, corner - margin + start, side, beyond).to(self.device).unsqueeze(-1)

        features = _by_blocks(encode, cut, size, _around(cells, rings), step=CELL, halo=CELL)
        for stage in middle:
            rings -= 1
            features = _by_blocks(stage, _blocks_of(features), size, _around(cells, rings), halo=2)
        places = _by_blocks(decode, _blocks_of(features), size, cells, halo=2, places=_PLACES).squeeze(-1)
        logits: Logits = places[tuple(slice(_PLACES * n) for n in cells.shape)].float().cpu().numpy()
        return logits

    def _stages(self, scale: Callable[[Tensor], Tensor]) -> list[Callable[[Tensor], Tensor]]:
        """Return the network in steps from cells to cells: three layers, then one each, then the last two and head."""

        def encode(x: Tensor) -> Tensor:
            x = scale(x)
            for layer in self.layers[:3]:
                x = layer(x)
            return x

        def decode(x: Tensor) -> Tensor:
            y = self.layers[-1](self.layers[-2](x)).unflatten(1, (-1, self.network.group.order)).amax(dim=2)
            linear = self.network.linear
            return (torch.einsum("bcdhw,c->bdhw", y.float(), linear.weight[0]) + linear.bias).unsqueeze(1)

        return [encode, *self.layers[3:-2], decode]


def make_mapper(network: ProposalNetwork, device: torch.device, *, bfloat16: bool | None = None) -> ProposalMapper:
    """Return the mapper of a network in eval mode.

    bfloat16: default: where the device multiplies it natively
    """
    fast = has_fast_bfloat16(device) if bfloat16 is None else bfloat16
    layers = []
    for number, block in enumerate(network.blocks):
        assert isinstance(block, ProposalBlock)  # for the type checker
        # With one input channel bfloat16 gains nothing, and here its rounding would be that of the HU themselves.
        layers.append(_folded(block, torch.bfloat16 if fast and number else torch.float32))
    network = network.to(device)
    on_device = [_Layer(x.weight.to(device), x.bias.to(device), x.stride, x.transposed) for x in layers]
    return ProposalMapper(network, device, tuple(on_device))


@torch.no_grad()
def _folded(block: ProposalBlock, dtype: torch.dtype) -> _Layer:
    conv = block.conv
    scale, shift = (v.repeat_interleave(conv.group.order) for v in block.norm.scale_and_shift())
    weight, given = conv.expanded_weight() * scale.view(-1, 1, 1, 1, 1), conv.expanded_bias()
    bias = shift if given is None else given * scale + shift
    transposed = isinstance(conv, TransposedGroupConv)
    if transposed:
        weight = weight.transpose(0, 1)
    return _Layer(weight.to(dtype).contiguous(memory_format=LAYOUT[3]), bias.to(dtype), conv.stride, transposed)


def _wanted_cells(wanted: Mask) -> tuple[NDArray[np.int64], Mask]:
    """Return the voxel where the cells begin, and a bool for each cell: True if it holds a wanted voxel."""
    spans = [np.flatnonzero(wanted.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    corner = np.array([span[0] for span in spans])
    inner = wanted[tuple(slice(span[0], span[-1] + 1) for span in spans)]
    padded = np.pad(inner, [(0, -length % CELL) for length in inner.shape])
    depth, height, width = (length // CELL for length in padded.shape)
    return corner, np.asarray(padded.reshape(depth, CELL, height, CELL, width, CELL).any(axis=(1, 3, 5)))


def _around(cells: Mask, rings: int) -> Mask:
    """Return the mask of the cells padded by a number of rings and dilated by as many."""
    padded = np.pad(cells, rings)
    return np.asarray(ndimage.binary_dilation(padded, np.ones((3, 3, 3)), iterations=rings)) if rings else padded


def _cut_out(image: NDArray[Any], start: NDArray[np.int64], side: int, beyond: float) -> Tensor:
    """Return a cube of the image from `start`, float32. Parts outside the image have the value `beyond`."""
    cube = np.full((side,) * 3, beyond, np.float32)
    low, high = np.clip(start, 0, image.shape), np.clip(start + side, 0, image.shape)
    target = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
    cube[target] = image[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return torch.from_numpy(cube)


def _blocks_of(features: Tensor) -> Callable[[NDArray[np.int64], int], Tensor]:
    """Return a function that cuts cubes out of a map [D, H, W, C]."""

    def cut(start: NDArray[np.int64], side: int) -> Tensor:
        z, y, x = start
        return features[z : z + side, y : y + side, x : x + side]

    return cut


def _by_blocks(
    stage: Callable[[Tensor], Tensor],
    cut: Callable[[NDArray[np.int64], int], Tensor],
    size: tuple[int, ...],
    needed: Mask,
    *,
    halo: int,
    step: int = 1,
    places: int = 1,
) -> Tensor:
    """Apply a stage to a map [D, H, W, C] in the blocks that hold a needed cell.

    cut:    returns the cube of the source from a place on, with a number of places along each side
    step:   places of the source along each side of a cell
    halo:   places of the source that the stage reads beyond a block
    places: places of the target along each side of a cell
    """
    target: Tensor | None = None
    side = _BLOCK * step + halo
    for corners in _blocks(needed):
        boxes = [cut(corner, side) for corner in corners * _BLOCK * step]
        values = stage(torch.stack(boxes).permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
        if target is None:
            shape = [places * n for n in size]
            fill = NOWHERE if places > 1 else 0.0
            target = torch.full((*shape, values.shape[-1]), fill, dtype=values.dtype, device=values.device)
        edge = _BLOCK * places
        for (z, y, x), value in zip(corners * edge, values, strict=True):
            target[z : z + edge, y : y + edge, x : x + edge] = value
    assert target is not None  # at least one cell is wanted
    return target


def _blocks(needed: Mask) -> Iterator[NDArray[np.int64]]:
    """Yield the numbers [N, 3] of the blocks that hold a needed cell, a few at a time."""
    padded = np.pad(needed, [(0, -length % _BLOCK) for length in needed.shape])
    depth, height, width = (length // _BLOCK for length in padded.shape)
    hit = padded.reshape(depth, _BLOCK, height, _BLOCK, width, _BLOCK).any(axis=(1, 3, 5))
    numbers = np.argwhere(hit)
    for first in range(0, len(numbers), _BATCH):
        yield numbers[first : first + _BATCH]
