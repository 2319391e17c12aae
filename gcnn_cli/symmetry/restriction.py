"""Restriction of feature maps to a subgroup: later layers then need to respect fewer symmetries.

    y(c t, h, x) = f(c, h t, x),     h in the subgroup H, t one element of each coset H t

Turning f by k in H turns y as a map of H: (L_k f)(h t) = f(k^-1 h t). Each field of G becomes |G| / |H| fields of H,
and nothing is lost. Early layers can thus share weights over all of O, and later ones tell up from down.
"""

import numpy as np
import torch
from torch import Tensor, nn

from gcnn_cli.errors import ModelError
from gcnn_cli.symmetry.groups import Group
from gcnn_cli.symmetry.shapes import check_features


class RestrictGroup(nn.Module):
    """Feature map of a group [B, C, G, *grid] -> of a subgroup [B, C * |G| / |H|, H, *grid], exactly.

    The cosets of a field stand beside each other, in the order of their first elements. Raises ModelError for a
    subgroup that is none.
    """

    places: Tensor

    def __init__(self, group: Group, subgroup: Group) -> None:
        super().__init__()
        own = {matrix.tobytes(): g for g, matrix in enumerate(group.matrices)}
        elements = [own.get(matrix.tobytes(), -1) for matrix in subgroup.matrices]
        if group.dimension != subgroup.dimension or min(elements) < 0:
            raise ModelError(f"{subgroup.name} is not a subgroup of {group.name}: a map can't be restricted to it")
        self.group = group
        self.subgroup = subgroup
        self.cosets = group.order // subgroup.order
        rows: list[np.ndarray[tuple[int, ...], np.dtype[np.int64]]] = []
        seen: set[int] = set()
        for t in range(group.order):
            if t not in seen:
                rows.append(group.product[elements, t])
                seen.update(rows[-1].tolist())
        self.register_buffer("places", torch.from_numpy(np.concatenate(rows)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        check_features(x, self.group)
        parts = x[:, :, self.places].unflatten(2, (self.cosets, self.subgroup.order))
        restricted: Tensor = parts.flatten(1, 2)
        return restricted

    def extra_repr(self) -> str:
        return f"{self.group.name} -> {self.subgroup.name}, each field becomes {self.cosets}"
