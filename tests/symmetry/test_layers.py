"""conv(g f) = g conv(f), for every element of every group, in two and three dimensions; and mutants that break it."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gcnn_cli.errors import ModelError
from gcnn_cli.symmetry.actions import act_on_features, act_on_image, rotate
from gcnn_cli.symmetry.groups import GENERATORS, make_group
from gcnn_cli.symmetry.laws import equivariance_error, invariant
from gcnn_cli.symmetry.layers import GroupConv, LiftingConv, TransposedGroupConv
from gcnn_cli.symmetry.norms import FieldNorm
from gcnn_cli.symmetry.pools import GroupPool, MaxPool, MeanPool

TOLERANCE = 1e-10
BROKEN = 1e-2
BOTH = ["O", "p4m"]


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def image(group, side=6):
    return random(2, 2, *(side,) * group.dimension)


def features(group, side=6, fields=2):
    return random(2, fields, group.order, *(side,) * group.dimension)


def seeded(layer):
    torch.manual_seed(0)
    for p in layer.parameters():
        nn.init.normal_(p)
    return layer.double().eval()


@pytest.mark.parametrize("side", [1, 3])
@pytest.mark.parametrize("name", GENERATORS)
def test_lifting_convolution_commutes(name, side):
    group = make_group(name)
    layer = seeded(LiftingConv(group, 2, 3, side))
    assert equivariance_error(layer, image(group), group, act_on_image, act_on_features) < TOLERANCE


@pytest.mark.parametrize("side", [1, 3])
@pytest.mark.parametrize("name", GENERATORS)
def test_group_convolution_commutes(name, side):
    group = make_group(name)
    layer = seeded(GroupConv(group, 2, 3, side))
    assert equivariance_error(layer, features(group), group, act_on_features, act_on_features) < TOLERANCE


@pytest.mark.parametrize("name", GENERATORS)
def test_an_even_kernel_over_the_whole_map_commutes(name):
    group = make_group(name)
    layer = seeded(GroupConv(group, 2, 3, side=4, pad=False))
    x = features(group, side=4)
    assert equivariance_error(layer, x, group, act_on_features, act_on_features) < TOLERANCE


@pytest.mark.parametrize("name", GENERATORS)
def test_group_convolution_is_the_sum_it_claims_to_be(name):
    """y(g, x) = sum_{h,u} f(h, x + u) w(g^-1 h, g^-1 u): checked at the middle voxel, term by term."""
    group = make_group(name)
    layer = seeded(GroupConv(group, 1, 1, side=3))
    x = features(group, side=3, fields=1)[:1]
    middle = (0, 0, slice(None), *(1,) * group.dimension)
    for g in range(group.order):
        total = layer.bias[0].clone()
        for h in range(group.order):
            kernel = rotate(layer.weight[0, 0, group.product[group.inverse[g], h]], group.matrices[g])
            total += (x[0, 0, h] * kernel).sum()
        assert torch.allclose(layer(x)[middle][g], total, atol=TOLERANCE)


@pytest.mark.parametrize("name", GENERATORS)
@pytest.mark.parametrize("training", [False, True])
def test_norm_commutes(name, training):
    group = make_group(name)
    layer = seeded(FieldNorm(group, 2)).train(training)
    assert equivariance_error(layer, features(group), group, act_on_features, act_on_features) < TOLERANCE


@pytest.mark.parametrize("name", GENERATORS)
def test_pools_commute(name):
    group = make_group(name)
    x = features(group)
    for pool in (MaxPool(group), MeanPool(group)):
        assert equivariance_error(pool, x, group, act_on_features, act_on_features) < TOLERANCE
    for kind in ("max", "mean"):
        assert equivariance_error(GroupPool(group, kind), x, group, act_on_features, act_on_image) < TOLERANCE


@pytest.mark.parametrize("name", GENERATORS)
def test_the_action_is_a_group_action(name):
    group = make_group(name)
    x = features(group)
    for g in range(group.order):
        for h in range(0, group.order, 5):
            twice = act_on_features(act_on_features(x, h, group), g, group)
            assert torch.equal(twice, act_on_features(x, int(group.product[g, h]), group))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", GENERATORS)
def test_a_layer_and_its_export_agree_and_share_nothing(name, bias):
    group = make_group(name)
    lift = seeded(LiftingConv(group, 2, 3, bias=bias))
    conv = seeded(GroupConv(group, 2, 3, side=2, pad=False, bias=bias))
    for layer, x in ((lift, image(group)), (conv, features(group))):
        plain, channels = layer.export(), x if layer is lift else x.flatten(1, 2)
        expected = layer(x).flatten(1, 2)
        assert torch.allclose(plain(channels), expected, atol=TOLERANCE)
        for value in layer.parameters():
            nn.init.zeros_(value)
        assert torch.allclose(plain(channels), expected, atol=TOLERANCE)
        assert (plain.bias is not None) == bias


def test_a_layer_shows_its_shape():
    group = make_group("O")
    layers = nn.Sequential(LiftingConv(group, 1, 4), GroupConv(group, 4, 8, side=2, pad=False, bias=False))
    layers.extend([FieldNorm(group, 8), MaxPool(group), GroupPool(group)])
    text = str(layers)
    for line in (
        "LiftingConv(O, 1, 4, side=3, stride=1, padding=1, bias=True)",
        "GroupConv(O, 4, 8, side=2, stride=1, padding=0, bias=False)",
        "O, 8\n",
        "MaxPool(O)",
        "GroupPool(O, max)",
    ):
        assert line in text


def test_the_trivial_group_is_an_ordinary_convolution():
    layer = seeded(GroupConv(make_group("trivial"), 2, 3))
    x = features(make_group("trivial"))
    expected = F.conv3d(x[:, :, 0], layer.weight[:, :, 0], layer.bias, padding=1)
    assert torch.allclose(layer(x)[:, :, 0], expected)


def test_a_turned_image_is_turned_as_the_matrix_says():
    # Rz4 maps +x onto ... (z, y, x) = (0, 0, 1) -> (0, -1, 0): a bright voxel at +x moves to -y.
    group = make_group("C4")
    quarter = next(g for g in range(4) if group.matrices[g].tolist() == [[1, 0, 0], [0, 0, -1], [0, 1, 0]])
    x = torch.zeros(3, 3, 3)
    x[1, 1, 2] = 1
    assert act_on_image(x, quarter, group)[1, 0, 1] == 1


# The mutants: each breaks one rule, and the same law must notice.


@pytest.mark.parametrize("name", BOTH)
def test_a_wrong_product_order_is_noticed(name):
    group = make_group(name)
    layer, x = seeded(GroupConv(group, 2, 3)), features(make_group(name))

    def wrong(y, g, group):
        return rotate(y[:, :, group.product[g].tolist()], group.matrices[g])

    assert equivariance_error(layer, x, group, act_on_features, wrong) > BROKEN


@pytest.mark.parametrize("name", BOTH)
def test_an_untied_bias_is_noticed(name):
    group = make_group(name)
    layer = seeded(GroupConv(group, 2, 3))
    untied = random(3, group.order, *(1,) * group.dimension)
    assert (
        equivariance_error(lambda x: layer(x) + untied, features(group), group, act_on_features, act_on_features)
        > BROKEN
    )


@pytest.mark.parametrize("name", BOTH)
def test_a_norm_for_each_orientation_is_noticed(name):
    group = make_group(name)
    norm = seeded(nn.BatchNorm3d(2 * group.order)).train()

    def untied(x):
        return norm(x.flatten(1, 2).flatten(2)[..., None, None]).view_as(x)

    assert equivariance_error(untied, features(group), group, act_on_features, act_on_features) > BROKEN


@pytest.mark.parametrize("name", BOTH)
def test_stride_two_on_an_even_grid_is_noticed(name):
    group = make_group(name)
    layer = seeded(LiftingConv(group, 2, 3))
    every_second = (slice(None),) * 3 + (slice(None, None, 2),) * group.dimension
    error = equivariance_error(lambda x: layer(x)[every_second], image(group), group, act_on_image, act_on_features)
    assert error > BROKEN


def test_nan_is_a_broken_law():
    group = make_group("O")
    assert equivariance_error(lambda x: x * math.nan, image(group), group, act_on_image, act_on_image) == math.inf


def test_what_would_break_the_law_is_refused():
    group = make_group("O")
    with pytest.raises(ModelError, match="even side 4"):
        LiftingConv(group, 1, 1, side=4)
    with pytest.raises(ModelError, match="even grid"):
        MaxPool(group)(features(group, side=5))


def test_invariant_leaves_its_argument_alone():
    x = random(3)
    assert invariant(x, 1, make_group("O")) is x


@pytest.mark.parametrize("side", [2, 4])
@pytest.mark.parametrize("name", GENERATORS)
def test_convolutions_with_a_stride_commute(name, side):
    group = make_group(name)
    lifting = seeded(LiftingConv(group, 2, 3, side, pad=False, stride=2))
    assert equivariance_error(lifting, image(group), group, act_on_image, act_on_features) < TOLERANCE
    inner = seeded(GroupConv(group, 2, 3, side, pad=False, stride=2))
    assert equivariance_error(inner, features(group), group, act_on_features, act_on_features) < TOLERANCE


@pytest.mark.parametrize(("side", "stride", "pad"), [(2, 2, False), (3, 2, False), (3, 2, True), (3, 3, True)])
@pytest.mark.parametrize("name", BOTH)
def test_a_stride_breaks_the_law_where_windows_do_not_tile_the_grid(name, side, stride, pad):
    """A kernel commutes on some grids; on the others an ordinary convolution breaks the law, and ours is refused."""
    group = make_group(name)
    layer = seeded(GroupConv(group, 2, 3, side, pad, stride=stride))
    plain = layer.export()
    refused = 0
    for length in range(5, 9):
        x = features(group, side=length)
        error = equivariance_error(
            lambda x: plain(x.flatten(1, 2)).unflatten(1, (3, group.order)), x, group, act_on_features, act_on_features
        )
        if error < TOLERANCE:
            assert equivariance_error(layer, x, group, act_on_features, act_on_features) < TOLERANCE
            continue
        assert error > BROKEN
        refused += 1
        with pytest.raises(ModelError, match="on one side only, which breaks the symmetry"):
            layer(x)
    assert 0 < refused < 4


@pytest.mark.parametrize("name", GENERATORS)
def test_a_transposed_convolution_commutes(name):
    group = make_group(name)
    layer = seeded(TransposedGroupConv(group, 2, 3))
    assert layer(features(group, side=3)).shape[3:] == (6,) * group.dimension
    assert equivariance_error(layer, features(group, side=3), group, act_on_features, act_on_features) < TOLERANCE


def test_a_transposed_convolution_sums_each_place_once_into_its_block():
    group = make_group("O")
    layer = seeded(TransposedGroupConv(group, 1, 2))
    x = torch.zeros(1, 1, group.order, 2, 2, 2, dtype=torch.float64)
    x[0, 0, 5, 1, 0, 1] = 1
    y = layer(x) - layer(torch.zeros_like(x))
    assert torch.equal(y[0, :, :, 2:, :2, 2:].flatten(0, 1), layer.expanded_weight()[:, 5])
    y[:, :, :, 2:, :2, 2:] = 0
    assert not y.any()
