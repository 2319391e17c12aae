"""Seeded random patches for small networks."""

import torch

from gcnn_cli.symmetry.groups import make_group


def patches(group, dtype=torch.float64, count=2):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, 1, *(8,) * make_group(group).dimension, dtype=dtype, generator=generator)
