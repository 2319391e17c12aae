"""Equivariance, measured for every element of a group.

    error(g) = max |function(g x) - g function(x)| / max |function(x)|

The error of a function that returns NaN is infinite.
"""

import math
from collections.abc import Callable

from torch import Tensor

from gcnn_cli.symmetry.groups import Group

Action = Callable[[Tensor, int, Group], Tensor]


def equivariance_errors(
    function: Callable[[Tensor], Tensor], x: Tensor, group: Group, act_in: Action, act_out: Action
) -> list[float]:
    """Return the relative error of each element, in the group's order."""
    y = function(x).detach()
    return [relative_error(function(act_in(x, g, group)).detach(), act_out(y, g, group)) for g in range(group.order)]


def equivariance_error(
    function: Callable[[Tensor], Tensor], x: Tensor, group: Group, act_in: Action, act_out: Action
) -> float:
    """Return the largest relative error over the group."""
    return max(equivariance_errors(function, x, group, act_in, act_out))


def invariant(y: Tensor, g: int, group: Group) -> Tensor:
    """Return y itself: the action on a result that must not change."""
    del g, group
    return y


def relative_error(y: Tensor, expected: Tensor) -> float:
    """Return max |y - expected| / max |expected|; infinite for NaN."""
    scale, error = float(expected.abs().max()), float((y - expected).abs().max())
    relative = error / scale if scale > 0 else error
    return relative if math.isfinite(relative) else math.inf
