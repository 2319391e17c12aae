"""A committee: several networks whose score is the mean of their logits.

Each member is trained on a different part of the patients. The members' mistakes differ more than their hits, which
favors the mean over a single member. Each member can be measured on the patients that it has not seen. A member of
another recipe errs elsewhere, and may count for more than one of several that are alike.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from gcnn_cli.errors import ModelError
from gcnn_cli.network.architecture import GCNN, NetworkConfig
from gcnn_cli.symmetry.groups import Group


class Committee(nn.Module):
    """Patches [B, 1, *grid] -> the members' mean logits [B]. All members have the same configuration.

    shares: positive part of each member in the mean; they sum to 1 (default: equal ones)

    The mean is invariant under the group of the members. Raises ModelError without members, if their configurations
    differ, or for impossible shares.
    """

    def __init__(self, members: Sequence[GCNN], shares: Sequence[float] | None = None) -> None:
        super().__init__()
        if not members:
            raise ModelError("a committee needs at least one network")
        if any(member.config != members[0].config for member in members):
            raise ModelError("the networks of a committee must have the same configuration")
        self.members = nn.ModuleList(members)
        self.config: NetworkConfig = members[0].config
        self.group: Group = members[0].group
        self.shares = equal_shares(len(members)) if shares is None else tuple(shares)
        if len(self.shares) != len(members) or not all(0 < s <= 1 for s in self.shares):
            raise ModelError(f"a committee needs a share above 0 for each of its {len(members)} networks")
        if not math.isclose(sum(self.shares), 1, abs_tol=1e-9):
            raise ModelError(f"the shares of a committee must sum to 1, not to {sum(self.shares):g}")

    def forward(self, x: Tensor) -> Tensor:
        return mean_logit([member(x) for member in self.members], self.shares)

    @property
    def parameters_count(self) -> int:
        """Number of trainable values of all members."""
        return sum(p.numel() for p in self.parameters())


Network = GCNN | Committee


def equal_shares(members: int) -> tuple[float, ...]:
    """Return the shares of members that count alike."""
    return (1 / members,) * members


def mean_logit(logits: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Return the mean [B] of the members' logits, each [B], by their shares."""
    return torch.stack([share * logit for logit, share in zip(logits, shares, strict=True)]).sum(dim=0)


def members_of(network: Network) -> tuple[GCNN, ...]:
    """Return the members of a committee; a single network is its own only member."""
    if isinstance(network, GCNN):
        return (network,)
    return tuple(member for member in network.members if isinstance(member, GCNN))


def shares_of(network: Network) -> tuple[float, ...]:
    """Return the shares of a committee's members in the mean; a single network has all of it."""
    return (1.0,) if isinstance(network, GCNN) else network.shares


def build_network(config: NetworkConfig, members: int, shares: Sequence[float] | None = None) -> Network:
    """Return an untrained network with this configuration, or a committee if `members` is above 1."""
    if members < 1:
        raise ModelError(f"weights must hold at least one network, got {members}")
    return GCNN(config) if members == 1 else Committee([GCNN(config) for _ in range(members)], shares)


def check_values(config: NetworkConfig, members: int, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless the tensors can be those of such a network, before it is built.

    A small file must not make a large network.
    """
    if len(config.fields) * members > len(state):
        raise ValueError(f"{len(config.fields) * members} layers but only {len(state)} tensors")
    if config.kernel_values * members > sum(value.numel() for value in state.values()):
        raise ValueError("the network and the tensors differ in size")
