"""Group-equivariant convolutions on regular fields, in two and three dimensions; they know nothing of CT.

groups       finite groups of signed permutation matrices, as data
actions      a group acting on images and feature maps, exactly
expansion    kernels in every orientation
layers       lifting, group, separable and transposed group convolution (Cohen & Welling 2016)
norms        batch normalization by field
pools        pooling over the grid and over the group, and upsampling
restriction  from a group to a subgroup
dropout      of whole fields
laws         equivariance, measured for every element

    from gcnn_cli.symmetry import GroupConv, GroupPool, LiftingConv, make_group

    group = make_group("O")
    features = GroupConv(group, 4, 8)(LiftingConv(group, 1, 4)(image))     # [B, 1, D, H, W] -> [B, 8, 24, D, H, W]
    invariant = GroupPool(group)(features).mean(dim=(2, 3, 4))             # [B, 8]
"""

from gcnn_cli.symmetry.actions import act_on_features, act_on_image, rotate
from gcnn_cli.symmetry.dropout import FieldDropout
from gcnn_cli.symmetry.groups import GENERATORS, Group, make_group
from gcnn_cli.symmetry.laws import equivariance_error, equivariance_errors, invariant
from gcnn_cli.symmetry.layers import FieldwiseConv, GroupConv, LiftingConv, SeparableGroupConv, TransposedGroupConv
from gcnn_cli.symmetry.norms import FieldNorm
from gcnn_cli.symmetry.pools import BlurPool, GroupPool, MaxPool, MeanPool, Upsample
from gcnn_cli.symmetry.restriction import RestrictGroup
from gcnn_cli.symmetry.shapes import check_turns, turns

__all__ = [
    "GENERATORS",
    "BlurPool",
    "FieldDropout",
    "FieldNorm",
    "FieldwiseConv",
    "Group",
    "GroupConv",
    "GroupPool",
    "LiftingConv",
    "MaxPool",
    "MeanPool",
    "RestrictGroup",
    "SeparableGroupConv",
    "TransposedGroupConv",
    "Upsample",
    "act_on_features",
    "act_on_image",
    "check_turns",
    "equivariance_error",
    "equivariance_errors",
    "invariant",
    "make_group",
    "rotate",
    "turns",
]
