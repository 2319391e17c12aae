"""Maps of another group, number of fields or grid are refused, with both named."""

from itertools import permutations

import pytest
import torch
from torch import nn

from gcnn_cli.errors import ModelError
from gcnn_cli.symmetry import (
    GENERATORS,
    FieldNorm,
    GroupConv,
    GroupPool,
    LiftingConv,
    MaxPool,
    MeanPool,
    act_on_features,
    act_on_image,
    equivariance_error,
    make_group,
    rotate,
)

# The groups of one order and dimension: a shape cannot tell their maps apart.
ALIKE = [{"C4h", "D4"}]


def features(name, fields, side=4):
    group = make_group(name)
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, fields, group.order, *(side,) * group.dimension, dtype=torch.float64, generator=generator)


def layers(name, fields=2):
    group = make_group(name)
    made = (GroupConv(group, fields, 3), FieldNorm(group, fields), MaxPool(group), MeanPool(group), GroupPool(group))
    return [layer.double() for layer in made]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("own", "other"), list(permutations(GENERATORS, 2)))
def test_a_map_of_another_group_is_refused(own, other, training):
    x = features(other, 2)
    for layer in layers(own):
        layer.train(training)
        if {own, other} in ALIKE:
            layer(x)
        else:
            with pytest.raises(ModelError, match=rf"{own} takes maps .*, got .*: 2 fields of .*\b{other}\b"):
                layer(x)


@pytest.mark.parametrize("training", [False, True])
def test_a_map_with_as_many_channels_of_another_group_is_refused(training):
    x = features("D4", 24)  # 192 channels, as 8 fields of O
    for layer in layers("O", fields=8):
        layer.train(training)
        with pytest.raises(ModelError, match=r"O takes maps .*got \(2, 24, 8, 4, 4, 4\): 24 fields of C4h or D4"):
            layer(x)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("fields", [1, 2, 8])
def test_a_map_with_another_number_of_fields_is_refused(fields, training):
    for layer in layers("O", fields=4)[:2]:
        layer.train(training)
        with pytest.raises(ModelError, match=rf"4 fields of O takes .*: {fields} fields of O"):
            layer(features("O", fields))


def test_a_mixture_is_refused_inside_a_sequence():
    d4, o = make_group("D4"), make_group("O")
    mixed = nn.Sequential(LiftingConv(d4, 1, 24), FieldNorm(d4, 24), nn.ReLU(), MaxPool(d4), GroupConv(o, 8, 4))
    with pytest.raises(ModelError, match="8 fields of O takes .*: 24 fields of C4h or D4"):
        mixed(torch.zeros(1, 1, 4, 4, 4))


def test_the_law_detects_the_mixture_that_no_shape_shows():
    torch.manual_seed(0)
    first, second = make_group("C4h"), make_group("D4")
    mixed = nn.Sequential(LiftingConv(first, 1, 2), nn.ReLU(), GroupConv(second, 2, 2)).double()
    x = torch.randn(1, 1, 4, 4, 4, dtype=torch.float64)
    assert equivariance_error(mixed, x, first, act_on_image, act_on_features) > 1e-2
    assert equivariance_error(mixed, x, second, act_on_image, act_on_features) > 1e-2


def test_a_map_of_no_known_group_is_refused():
    with pytest.raises(ModelError, match="not a map of a known group"):
        GroupPool(make_group("O"))(torch.zeros(1, 2, 7, 4, 4, 4))


@pytest.mark.parametrize("shape", [(1, 2, 4, 4, 4), (1, 1, 4, 4), (1, 1, 24, 4, 4, 4)])
def test_an_image_of_other_channels_or_dimension_is_refused(shape):
    with pytest.raises(ModelError, match=r"layer of O takes images \[B, 1, D, H, W\], got"):
        LiftingConv(make_group("O"), 1, 2)(torch.zeros(shape))


@pytest.mark.parametrize("kind", ["avg", "Max", ""])
def test_an_unknown_kind_of_pooling_is_refused(kind):
    with pytest.raises(ModelError, match="must be 'max' or 'mean'"):
        GroupPool(make_group("O"), kind)


def test_a_grid_that_the_group_does_not_preserve_is_refused():
    """Thick slices: D4 turns them about z, O would exchange z with x."""
    image, maps = torch.randn(1, 1, 2, 4, 4), torch.randn(1, 1, 24, 2, 4, 4)
    d4, o = make_group("D4"), make_group("O")
    for g in range(d4.order):
        assert act_on_image(image, g, d4).shape == image.shape
    refused = 0
    for g, matrix in enumerate(o.matrices):
        if abs(matrix[0, 0]) == 1:
            assert rotate(image, matrix).shape == image.shape
            continue
        refused += 1
        with pytest.raises(ModelError, match=r"\(2, 4, 4\)"):
            act_on_image(image, g, o)
        with pytest.raises(ModelError, match=r"\(2, 4, 4\)"):
            act_on_features(maps, g, o)
    assert refused == 16
    with pytest.raises(ModelError):
        rotate(torch.zeros(4, 4), o.matrices[1])


def test_the_action_refuses_a_map_of_another_group():
    with pytest.raises(ModelError, match="O takes maps .*: 2 fields of Oh"):
        act_on_features(features("Oh", 2), 1, make_group("O"))
