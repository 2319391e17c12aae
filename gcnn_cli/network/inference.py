"""Inference with a trained network: the same function as its GCNN, computed faster as an ordinary CNN.

Kernels are expanded over the group once, the norms are folded into the convolutions
(w' = scale w, b' = scale b + shift), data is laid out channels-last, and bfloat16 is used where
the processor multiplies it natively. Group pooling stays a reshape and a maximum or mean.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gcnn_cli.errors import DeviceError, ModelError, is_out_of_memory
from gcnn_cli.network.architecture import GCNN, ConvBlock
from gcnn_cli.network.committee import Network, mean_logit, members_of, shares_of
from gcnn_cli.network.devices import autocast, has_fast_bfloat16
from gcnn_cli.symmetry.actions import rotate
from gcnn_cli.symmetry.cosets import coset_representatives
from gcnn_cli.symmetry.groups import make_group
from gcnn_cli.symmetry.layers import LAYOUT
from gcnn_cli.symmetry.shapes import check_turns

log = logging.getLogger("gcnn")

# Voxels of patches per batch on a CPU. The maps of larger batches do not stay in its cache and take up to 1.7 times as
# long.
_CACHED_VOXELS = 1 << 17
_MOST_PATCHES = 8  # on a CPU: more of small patches gain nothing, and the last part is filled up
_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


class FoldedGCNN(nn.Module):
    """The inference form of a GCNN: patches [B, 1, *grid] -> logits [B]. Raises ModelError outside eval mode."""

    def __init__(self, network: GCNN) -> None:
        super().__init__()
        if network.training:
            raise ModelError("only a network in eval mode can be folded; call .eval() first")
        layers: list[nn.Module] = []
        for block in network.blocks:
            assert isinstance(block, ConvBlock)  # for the type checker
            layers += _folded(block)
        # On the whole: `to` sets the strides of a single input channel too, by which torch chooses the layout.
        self.layers = nn.Sequential(*layers).to(memory_format=LAYOUT[network.group.dimension])  # type: ignore[call-overload]
        self.linear = network.linear
        self.order = network.group.order
        self.group_pool = network.config.group_pool
        self.head = network.config.head

    def forward(self, x: Tensor) -> Tensor:
        return self.score_map(self.layers(x))

    def score_map(self, y: Tensor) -> Tensor:
        """Return the logits [B] of the last convolution's maps, [B, channels, *grid]."""
        y = y.flatten(1).to(self.linear.weight.dtype)
        if self.head == "span":
            orientations = y.unflatten(1, (-1, self.order))
            y = orientations.amax(dim=2) if self.group_pool == "max" else orientations.mean(dim=2)
        with torch.autocast(y.device.type, enabled=False):  # the last sum deserves full precision
            # By row: a matrix product would sum in an order that depends on the size of the batch.
            logits: Tensor = (y * self.linear.weight[0]).sum(dim=1) + self.linear.bias
        return logits


class FoldedCommittee(nn.Module):
    """The inference form of a committee: patches [B, 1, *grid] -> the mean of its members' logits [B]."""

    def __init__(self, members: Iterable[GCNN], shares: tuple[float, ...]) -> None:
        super().__init__()
        self.members = nn.ModuleList(FoldedGCNN(member) for member in members)
        self.shares = shares

    def forward(self, x: Tensor) -> Tensor:
        return mean_logit([member(x) for member in self.members], self.shares)


def fold(network: Network) -> nn.Module:
    """Return the inference form of a network or committee in eval mode."""
    members = members_of(network)
    return FoldedGCNN(members[0]) if len(members) == 1 else FoldedCommittee(members, shares_of(network))


@torch.no_grad()
def _folded(block: ConvBlock) -> list[nn.Module]:
    dimension, order = block.conv.group.dimension, block.conv.group.order
    scale, shift = (v.repeat_interleave(order) for v in block.norm.scale_and_shift())
    plain = block.conv.export()
    plain.weight *= scale.view(-1, 1, *(1,) * dimension)
    plain.bias = nn.Parameter(shift if plain.bias is None else plain.bias * scale + shift)
    pool = [] if block.pool is None else [_POOL[dimension](block.pool.side)]
    # ReLU and maximum commute. Pooled first, the map has fewer values for the ReLU.
    return [plain, *pool, nn.ReLU(inplace=True)]


@dataclass(frozen=True, eq=False)
class Scorer:
    """A network that scores patches on one device.

    average_over: name of a group. The logit is the mean over all copies of the patch that its elements turn
                  (test-time augmentation), which makes any network invariant under that group.
    group:        the group under which the network is invariant: of copies that it turns into each other one is scored
    """

    network: nn.Module
    device: torch.device
    bfloat16: bool
    average_over: str = "trivial"
    group: str = "trivial"

    def __post_init__(self) -> None:
        coset_representatives(self.group, self.average_over)  # raises ModelError before a scan is read

    @property
    def passes(self) -> int:
        """Number of times that a network looks at each patch: members of the committee times copies of the patch."""
        members = len(self.network.members) if isinstance(self.network, FoldedCommittee) else 1
        return members * len(coset_representatives(self.group, self.average_over))

    def score(self, batches: Iterable[Tensor]) -> NDArray[np.float32]:
        """Return the logits [N] of all patches, given in batches [B, 1, *grid]. Raises as `screen`."""
        return self._over(batches, self._score_batch)

    def screen(self, batches: Iterable[Tensor]) -> NDArray[np.float32]:
        """Return the logits [N] that a single pass gives: of the first member, for the patches as they are.

        A batch that does not fit into memory is halved, and so are those after it, with one warning for each size.
        Raises DeviceError if a single patch does not fit, ModelError for scores that are not finite.
        """
        first = self.network.members[0] if isinstance(self.network, FoldedCommittee) else self.network
        return self._over(batches, lambda batch: self._forward(first, batch))

    @torch.inference_mode()
    def _over(self, batches: Iterable[Tensor], score: Callable[[Tensor], Tensor]) -> NDArray[np.float32]:
        # On the device until the end: a GPU works on one batch while the next is cut.
        logits = [torch.zeros(0, device=self.device)]
        most = 0  # patches per batch; 0 while every batch has fitted
        for batch in batches:
            waiting = self._cached_parts(batch)
            while waiting:
                part = waiting.pop(0)
                if most and len(part) > most:
                    waiting = [*part.split(most), *waiting]
                    continue
                try:
                    logits.append(score(self._filled(self._moved(part), most))[: len(part)])
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    most = self._half_of(part)
                    waiting.insert(0, part)
        scores: NDArray[np.float32] = torch.cat(logits).cpu().numpy()
        if not np.isfinite(scores).all():
            raise ModelError("the network's scores are not finite: its weights are damaged")
        return scores

    def _cached_parts(self, batch: Tensor) -> list[Tensor]:
        """Split a batch into parts whose maps stay in a CPU's cache; on other devices, return it whole."""
        if self.device.type != "cpu":
            return [batch]
        return list(batch.split(_cached_patches(batch)))

    def _filled(self, part: Tensor, most: int) -> Tensor:
        """Fill a part up on a CPU with copies of its last patch, so that all parts have one size.

        Convolutions sum in an order that depends on the size of the batch: a score must not depend on its neighbors.
        """
        if self.device.type != "cpu":
            return part
        size = _cached_patches(part)
        missing = (min(size, most) if most else size) - len(part)
        return part if missing <= 0 else torch.cat([part, part[-1:].expand(missing, *part.shape[1:])])

    def _half_of(self, batch: Tensor) -> int:
        """Return half the size of a batch that did not fit. Raises DeviceError for a single patch."""
        if len(batch) == 1:
            remedy = "free some memory" if self.device.type == "cpu" else "use --device cpu"
            raise DeviceError(f"{self.device} ran out of memory with a single patch; {remedy}") from None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(batch) // 2
        log.warning("%s ran out of memory with %d patches per batch; continuing with %d", self.device, len(batch), half)
        return half

    def _moved(self, batch: Tensor) -> Tensor:
        # Patches are cut on the host and then moved: they have fewer voxels than the scan.
        pinned = self.device.type == "cuda" and batch.device.type == "cpu"
        batch = batch.pin_memory() if pinned else batch
        return batch.to(self.device, non_blocking=pinned)

    def _score_batch(self, batch: Tensor) -> Tensor:
        looks = coset_representatives(self.group, self.average_over)
        return torch.stack([self._forward(self.network, rotate(batch, matrix)) for matrix in looks]).mean(dim=0)

    def _forward(self, network: nn.Module, batch: Tensor) -> Tensor:
        batch = batch.contiguous(memory_format=LAYOUT[batch.ndim - 2])
        with autocast(self.device, bfloat16=self.bfloat16):
            y: Tensor = network(batch)
        return y.float()


def _cached_patches(batch: Tensor) -> int:
    """Return how many patches of a batch's size a CPU computes at once: a power of two, as detection's batches are."""
    held = _CACHED_VOXELS // max(1, batch[:1].numel())
    return min(_MOST_PATCHES, 1 << max(1, held).bit_length() - 1)


def make_scorer(
    network: Network, device: torch.device, *, average_over: str = "trivial", bfloat16: bool | None = None
) -> Scorer:
    """Return a Scorer for a network or committee in eval mode.

    average_over: see Scorer
    bfloat16:     default: where the device multiplies it natively

    Raises ModelError for a group to average over that does not turn the network's patches into themselves.
    """
    precision = has_fast_bfloat16(device) if bfloat16 is None else bfloat16
    config = network.config
    check_turns(make_group(average_over), config.sides, "the patch")
    return Scorer(fold(network).to(device).eval(), device, precision, average_over, config.invariant_under)
