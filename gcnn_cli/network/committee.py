"""A committee: several networks whose score is the mean of their logits.

Each member is trained on a different part of the patients. The members' mistakes differ more than their hits, which
favors the mean over a single member. Each member can be measured on the patients that it has not seen.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gcnn_cli.errors import ModelError
from gcnn_cli.network.architecture import GCNN, NetworkConfig
from gcnn_cli.symmetry.groups import Group


class Committee(nn.Module):
    """Patches [B, 1, *grid] -> the members' mean logits [B]. All members have the same configuration.

    The mean is invariant under the group of the members. Raises ModelError without members, or if their
    configurations differ.
    """

    def __init__(self, members: Sequence[GCNN]) -> None:
        super().__init__()
        if not members:
            raise ModelError("a committee needs at least one network")
        if any(member.config != members[0].config for member in members):
            raise ModelError("the networks of a committee must have the same configuration")
        self.members = nn.ModuleList(members)
        self.config: NetworkConfig = members[0].config
        self.group: Group = members[0].group

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([member(x) for member in self.members]).mean(dim=0)

    @property
    def parameters_count(self) -> int:
        """Number of trainable values of all members."""
        return sum(p.numel() for p in self.parameters())


Network = GCNN | Committee


def members_of(network: Network) -> tuple[GCNN, ...]:
    """Return the members of a committee; a single network is its own only member."""
    if isinstance(network, GCNN):
        return (network,)
    return tuple(member for member in network.members if isinstance(member, GCNN))


def build_network(config: NetworkConfig, members: int) -> Network:
    """Return an untrained network with this configuration, or a committee if `members` is above 1."""
    if members < 1:
        raise ModelError(f"weights must hold at least one network, got {members}")
    return GCNN(config) if members == 1 else Committee([GCNN(config) for _ in range(members)])


def check_values(config: NetworkConfig, members: int, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless the tensors can be those of such a network, before it is built.

    A small file must not make a large network.
    """
    if len(config.fields) * members > len(state):
        raise ValueError(f"{len(config.fields) * members} layers but only {len(state)} tensors")
    if config.kernel_values * members > sum(value.numel() for value in state.values()):
        raise ValueError("the network and the tensors differ in size")
