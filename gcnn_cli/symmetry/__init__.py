"""Group-equivariant convolutions on regular fields, in two and three dimensions; they know nothing of CT.

groups   finite groups of signed permutation matrices, as data
actions  a group acting on images and feature maps, exactly
layers   lifting, group and transposed group convolution (Cohen & Welling 2016)
norms    batch normalization by field
pools    pooling over the grid and over the group
laws     equivariance, measured for every element
"""

from gcnn_cli.symmetry.actions import act_on_features, act_on_image, rotate
from gcnn_cli.symmetry.groups import GENERATORS, Group, make_group
from gcnn_cli.symmetry.laws import equivariance_error, equivariance_errors, invariant
from gcnn_cli.symmetry.layers import GroupConv, LiftingConv, TransposedGroupConv
from gcnn_cli.symmetry.norms import FieldNorm
from gcnn_cli.symmetry.pools import GroupPool, MaxPool, MeanPool

__all__ = [
    "GENERATORS",
    "FieldNorm",
    "Group",
    "GroupConv",
    "GroupPool",
    "LiftingConv",
    "MaxPool",
    "MeanPool",
    "TransposedGroupConv",
    "act_on_features",
    "act_on_image",
    "equivariance_error",
    "equivariance_errors",
    "invariant",
    "make_group",
    "rotate",
]
