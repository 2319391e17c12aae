"""One process of a team: the gradients and norms after one step on its part of a batch, saved by the first.

torchrun --nproc-per-node 2 tests/training/gradients_of_a_team.py OUT
"""

import sys

import torch
import torch.nn.functional as F

from gcnn_cli.network.architecture import GCNN, NetworkConfig
from gcnn_cli.training.distributed import Team, join_team, leave_team

CONFIG = NetworkConfig(fields=(2, 2), pool_after=(1,), side=8, head_fields=4)
BATCH = 8


def step(team: Team) -> dict[str, torch.Tensor]:
    """Gradients and the norms' statistics, by name, after a backward pass in float32."""
    torch.manual_seed(0)
    network = GCNN(CONFIG).train().to(team.device)
    trained = team.wrap(network)
    patches = torch.randn(BATCH, 1, 8, 8, 8)
    patches[::2] *= 3  # so that the parts' statistics differ
    labels = torch.arange(BATCH, dtype=torch.float32) % 3 % 2
    mine = team.part_of(range(BATCH))
    losses = F.binary_cross_entropy_with_logits(
        trained(patches[mine].to(team.device)), labels[mine].to(team.device), reduction="none"
    )
    losses.mean().backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    buffers = {name: b for name, b in network.named_buffers() if "running" in name}
    return {**gradients, **buffers, "losses": team.whole_of(losses.detach())}


if __name__ == "__main__":
    team = join_team(torch.device("cpu"))
    found = step(team)
    if team.leads:
        torch.save(found, sys.argv[1])
    team.meet()
    leave_team()
