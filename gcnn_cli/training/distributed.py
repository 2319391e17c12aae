"""Several processes that train one network together, each with a part of every batch (`torchrun`).

Data parallelism: gradients are averaged over the processes, and so are the statistics of the norms, so that N
processes with batches of B take the step that one process would take with a batch of N B. torch's own
synchronized norm is for CUDA alone; `symmetry.norms` shares its statistics on any device.
"""

import gc
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gcnn_cli.network.architecture import GCNN
from gcnn_cli.symmetry.norms import FieldNorm

T = TypeVar("T")

_CPU = torch.device("cpu")
_PATIENCE = timedelta(days=2)  # all others wait while the first process searches scans that no cache holds yet


@dataclass(frozen=True)
class Team:
    """This process among `size`; process 0 leads: it alone validates, writes and talks. Alone, nothing is sent."""

    rank: int = 0
    size: int = 1
    device: torch.device = _CPU

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def part_of(self, items: Sequence[T]) -> list[T]:
        """Every size-th item, so that both halves of a balanced batch are shared out alike."""
        return list(items[self.rank :: self.size])

    def whole_of(self, part: Tensor) -> Tensor:
        """The values [size * n] of everybody's items [n], in the order that `part_of` took them from."""
        if self.size == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(self.size)]
        dist.all_gather(parts, part.contiguous())
        return torch.stack(parts, dim=1).flatten(0, 1)

    def wrap(self, network: GCNN) -> nn.Module:
        """The network as it is trained: averages gradients where there are others. Its norms are shared in place."""
        if self.size == 1:
            return network
        share_norms(network)
        return DistributedDataParallel(network, broadcast_buffers=False)

    def meet(self) -> None:
        """Wait for the others, so that nobody leaves while they still talk."""
        if self.size > 1:
            dist.barrier()

    def anyone(self, wish: bool) -> bool:
        """Whether any process has the wish."""
        if self.size == 1:
            return wish
        votes = torch.tensor(float(wish), device=self.device)
        dist.all_reduce(votes, dist.ReduceOp.MAX)
        return bool(votes)

    def from_leader(self, make: Callable[[], T]) -> T:
        """What process 0 makes, for all."""
        if self.size == 1:
            return make()
        box: list[T | None] = [make() if self.leads else None]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]  # type: ignore[return-value]

    def in_turn(self, make: Callable[[], T]) -> T:
        """Made by process 0 first, then by the others, which find what it left on disk."""
        if self.size == 1:
            return make()
        made = make() if self.leads else None
        dist.barrier()
        return made if made is not None else make()


def join_team(device: torch.device) -> Team:
    """The team that torchrun started this process in, or this process alone.

    A CUDA device without a number becomes the one of this process on its machine.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        return Team(device=device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    return Team(dist.get_rank(), size, device)


def leave_team() -> None:
    """To be called by every process at the end, whatever the end is; after a good one they `meet` first.

    Wrapped networks, which hold the group in a cycle, go before it: what of gloo's threads is left when the
    interpreter ends aborts the process.
    """
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


def share_norms(network: nn.Module) -> None:
    """Let every norm take its statistics over everybody's batches, which must be of one size."""
    for module in network.modules():
        if isinstance(module, FieldNorm):
            module.share, module.sharers = _mean_of_all, dist.get_world_size()


def _mean_of_all(value: Tensor) -> Tensor:
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
