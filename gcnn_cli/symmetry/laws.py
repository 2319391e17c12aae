"""The law, measured: how far a function is from commuting with every element of a group.

    error(g) = max |function(g x) - g function(x)| / max |function(x)|

A function that returns NaN has broken the law: its error is infinite.
"""

import math
from collections.abc import Callable

from torch import Tensor

from gcnn_cli.symmetry.groups import Group

Action = Callable[[Tensor, int, Group], Tensor]


def equivariance_errors(
    function: Callable[[Tensor], Tensor], x: Tensor, group: Group, act_in: Action, act_out: Action
) -> list[float]:
    """The relative error of each element, in the group's order."""
    y = function(x).detach()
    scale = float(y.abs().max())
    return [
        _finite(float((function(act_in(x, g, group)).detach() - act_out(y, g, group)).abs().max()), scale)
        for g in range(group.order)
    ]


def equivariance_error(
    function: Callable[[Tensor], Tensor], x: Tensor, group: Group, act_in: Action, act_out: Action
) -> float:
    """The largest relative error over the group; NaN counts as infinite."""
    return max(equivariance_errors(function, x, group, act_in, act_out))


def invariant(y: Tensor, g: int, group: Group) -> Tensor:
    """The action on a result that must not change: y itself."""
    del g, group
    return y


def _finite(error: float, scale: float) -> float:
    relative = error / scale if scale > 0 else error
    return relative if math.isfinite(relative) else math.inf
