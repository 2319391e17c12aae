"""Data-parallel training: several processes train one network, each on a part of every batch (`torchrun`).

Gradients are averaged over the processes, and so are the statistics of the norms: N processes with batches of B
take the step that one process would take with a batch of N B. torch's own synchronized norm is for CUDA alone;
`symmetry.norms` shares its statistics on any device.
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
_TIMEOUT = timedelta(days=2)  # all others wait while rank 0 preprocesses scans that are not in the cache yet


@dataclass(frozen=True)
class Process:
    """This process, one of `world_size`. Rank 0 alone validates, writes and logs. A single process sends nothing."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = _CPU

    @property
    def is_main(self) -> bool:
        """True for rank 0."""
        return self.rank == 0

    def shard(self, items: Sequence[T]) -> list[T]:
        """Return every world_size-th item from this rank on: both halves of a balanced batch are divided alike."""
        return list(items[self.rank :: self.world_size])

    def all_gather(self, values: Tensor) -> Tensor:
        """Gather the values [n] of every rank as [world_size * n], in the order in which `shard` took the items."""
        if self.world_size == 1:
            return values
        gathered = [torch.empty_like(values) for _ in range(self.world_size)]
        dist.all_gather(gathered, values.contiguous())
        return torch.stack(gathered, dim=1).flatten(0, 1)

    def wrap(self, network: GCNN) -> nn.Module:
        """Return the network as it is trained: it averages gradients over the ranks, and its norms share statistics."""
        if self.world_size == 1:
            return network
        share_norms(network)
        return DistributedDataParallel(network, broadcast_buffers=False)

    def barrier(self) -> None:
        """Wait until every rank is here, so that no rank leaves while others still communicate."""
        if self.world_size > 1:
            dist.barrier()

    def all_reduce_any(self, flag: bool) -> bool:
        """Return True on every rank if the flag is True on any."""
        if self.world_size == 1:
            return flag
        reduced = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(reduced, dist.ReduceOp.MAX)
        return bool(reduced)

    def broadcast(self, make: Callable[[], T]) -> T:
        """Call `make` on rank 0 alone and return its result on every rank."""
        if self.world_size == 1:
            return make()
        box: list[T | None] = [make() if self.is_main else None]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]  # type: ignore[return-value]

    def main_first(self, make: Callable[[], T]) -> T:
        """Call `make` on rank 0, then on the others, which find on disk what rank 0 has stored."""
        if self.world_size == 1:
            return make()
        made = make() if self.is_main else None
        dist.barrier()
        return made if made is not None else make()


def join_process_group(device: torch.device) -> Process:
    """Join the process group that torchrun set up; without torchrun return a single process.

    A CUDA device without a number becomes the one of this process's local rank.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1 or "RANK" not in os.environ:
        return Process(device=device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    return Process(dist.get_rank(), world_size, device)


def leave_process_group() -> None:
    """Destroy the process group. Every process must call it, after success or failure; after success past a barrier.

    Wrapped networks hold the group in a reference cycle and are collected first: gloo threads that are left when
    the interpreter ends abort the process.
    """
    if dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


def share_norms(network: nn.Module) -> None:
    """Let every norm take its statistics over the batches of all ranks, which must have one size."""
    for module in network.modules():
        if isinstance(module, FieldNorm):
            module.share, module.sharers = _mean_over_ranks, dist.get_world_size()


def _mean_over_ranks(value: Tensor) -> Tensor:
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
