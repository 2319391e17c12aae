"""Save, from rank 0, the gradients and norms after one step of each rank on its part of a batch.

torchrun --nproc-per-node 2 tests/training/distributed_step.py OUT
"""

import sys

import torch
import torch.nn.functional as F

from gcnn_cli.network.architecture import GCNN, NetworkConfig
from gcnn_cli.training.distributed import Process, join_process_group, leave_process_group

CONFIG = NetworkConfig(fields=(2, 2), pool_after=(1,), side=8, head_fields=4)
BATCH = 8


def step(process: Process) -> dict[str, torch.Tensor]:
    """Return gradients and the norms' statistics, by name, after a backward pass in float32."""
    torch.manual_seed(0)
    network = GCNN(CONFIG).train().to(process.device)
    trained = process.wrap(network)
    patches = torch.randn(BATCH, 1, 8, 8, 8)
    patches[::2] *= 3  # so that the parts' statistics differ
    labels = torch.arange(BATCH, dtype=torch.float32) % 3 % 2
    mine = process.shard(range(BATCH))
    losses = F.binary_cross_entropy_with_logits(
        trained(patches[mine].to(process.device)), labels[mine].to(process.device), reduction="none"
    )
    losses.mean().backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    buffers = {name: b for name, b in network.named_buffers() if "running" in name}
    return {**gradients, **buffers, "losses": process.all_gather(losses.detach())}


if __name__ == "__main__":
    process = join_process_group(torch.device("cpu"))
    found = step(process)
    if process.is_main:
        torch.save(found, sys.argv[1])
    process.barrier()
    leave_process_group()
