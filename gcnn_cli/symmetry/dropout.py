"""Dropout of whole fields (Tompson et al. 2015, arXiv:1411.4280, for channels).

A field is dropped with all of its orientations and places. Dropped one by one, orientations would differ in
what they lack, and turning the map would no longer permute them.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from gcnn_cli.errors import ModelError
from gcnn_cli.symmetry.groups import Group
from gcnn_cli.symmetry.shapes import check_features


class FieldDropout(nn.Module):
    """Feature map [B, C, G, *grid] -> the same, with each field of each image set to 0 with a probability.

    In training mode the others are divided by (1 - probability); in eval mode nothing changes. For one draw of the
    dropped fields the law holds. Raises ModelError for a probability outside [0, 1).
    """

    def __init__(self, group: Group, probability: float = 0.5) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ModelError(f"a probability of dropout must be in [0, 1), got {probability}")
        self.group = group
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        check_features(x, self.group)
        if not self.training or self.probability == 0:
            return x
        ones = x.new_ones(*x.shape[:2], *(1,) * (x.ndim - 2))
        return x * F.dropout(ones, self.probability)

    def extra_repr(self) -> str:
        return f"{self.group.name}, {self.probability:g}"
