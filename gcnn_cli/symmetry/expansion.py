"""The expansion of a kernel over a group, and its memory in eval mode.

A kernel's value at (g, ...) is read from its own place g^-1 (...). The places are computed once, from `rotate` and
the Cayley table; expanding is then an indexing step.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gcnn_cli.symmetry.actions import rotate
from gcnn_cli.symmetry.groups import Group
from gcnn_cli.symmetry.shapes import Sides, check_turns, per_axis


def lifting_index(group: Group, side: Sides) -> Tensor:
    """Return positions in one kernel [*kernel], as [G, 1, *kernel]: row g holds the positions g^-1 u.

    Raises ModelError for a kernel that the group does not turn into itself.
    """
    sides = _kernel_sides(group, side)
    kernel = torch.arange(_product(sides)).view(1, *sides)
    return torch.stack([rotate(kernel, matrix) for matrix in group.matrices])


def group_index(group: Group, side: Sides) -> Tensor:
    """Return positions in one kernel [G, *kernel], as [G, G, *kernel]: row g holds the positions (g^-1 h, g^-1 u).

    Raises ModelError for a kernel that the group does not turn into itself.
    """
    sides = _kernel_sides(group, side)
    kernel = torch.arange(group.order * _product(sides)).view(group.order, *sides)
    rows = [rotate(kernel[group.product[group.inverse[g]].tolist()], group.matrices[g]) for g in range(group.order)]
    return torch.stack(rows)


class KeptExpansion:
    """The expanded form of a kernel, kept for as long as the kernel stays the same.

    A copy of the kernel says whether it does: every change is seen, `weight.data` and `load_state_dict` among them,
    which no version counter reports. The kernel is |G| times smaller than its expansion. Copies and files of a layer
    do not contain what is kept.
    """

    def __init__(self) -> None:
        self._kept: tuple[Tensor, Tensor] | None = None

    def of(self, weight: Tensor, expand: Callable[[], Tensor]) -> Tensor:
        """Return expand(), or what it returned for the same values of `weight`."""
        kept = self._kept
        if kept is None or not _same(kept[0], weight):
            # Normal tensors also within inference_mode: what is kept may be used outside of it.
            with torch.inference_mode(False), torch.no_grad():
                kept = (weight.detach().clone(), expand().detach())
            self._kept = kept
        return kept[1]

    def drop(self) -> None:
        """Forget what is kept, and free its memory."""
        self._kept = None

    def __deepcopy__(self, memo: dict[int, object]) -> "KeptExpansion":
        return KeptExpansion()

    def __reduce__(self) -> tuple[type["KeptExpansion"], tuple[()]]:
        return KeptExpansion, ()


def is_constant(weight: Tensor) -> bool:
    """Return True if a kernel is a plain parameter that takes no part in a gradient, a compilation or a trace."""
    return (
        type(weight) is nn.Parameter  # not a stand-in of torch.func
        and not (torch.is_grad_enabled() and weight.requires_grad)
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    )


def _same(kept: Tensor, weight: Tensor) -> bool:
    return kept.dtype == weight.dtype and kept.device == weight.device and torch.equal(kept, weight)


def _kernel_sides(group: Group, side: Sides) -> tuple[int, ...]:
    sides = per_axis(side, group.dimension, "the side of a kernel")
    check_turns(group, sides, "the kernel")
    return sides


def _product(values: tuple[int, ...]) -> int:
    product = 1
    for value in values:
        product *= value
    return product
