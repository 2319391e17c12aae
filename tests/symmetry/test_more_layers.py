"""Dilation, padding, unequal axes, separable convolution, restriction, dropout, pools and upsampling keep the law."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from symmetry.test_layers import BOTH, BROKEN, TOLERANCE, features, image, random, seeded
from torch import nn

from gcnn_cli.errors import ModelError
from gcnn_cli.symmetry import (
    GENERATORS,
    BlurPool,
    FieldDropout,
    FieldwiseConv,
    GroupConv,
    GroupPool,
    LiftingConv,
    MaxPool,
    MeanPool,
    RestrictGroup,
    SeparableGroupConv,
    TransposedGroupConv,
    Upsample,
    act_on_features,
    act_on_image,
    equivariance_error,
    make_group,
    turns,
)

KEEP_Z = ["trivial", "C4", "C4h", "D4", "D4h"]


def error_of(layer, x, group, act_in=act_on_features, act_out=act_on_features):
    return equivariance_error(layer, x, group, act_in, act_out)


@pytest.mark.parametrize("options", [{"dilation": 2}, {"bias": False}, {"dilation": 2, "stride": 2, "pad": False}])
@pytest.mark.parametrize("name", GENERATORS)
def test_convolutions_with_options_commute(name, options):
    group = make_group(name)
    x, side = image(group, side=7), features(group, side=7)
    assert error_of(seeded(LiftingConv(group, 2, 2, **options)), x, group, act_on_image) < TOLERANCE
    assert error_of(seeded(GroupConv(group, 2, 2, **options)), side, group) < TOLERANCE
    assert error_of(seeded(SeparableGroupConv(group, 2, 2, **options)), side, group) < TOLERANCE


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("name", BOTH)
def test_padding_modes_commute_and_pad_as_they_say(name, mode):
    group = make_group(name)
    layer, x = seeded(GroupConv(group, 2, 2, padding_mode=mode)), features(group)
    assert error_of(layer, x, group) < TOLERANCE
    padded = F.pad(x.flatten(1, 2), (1,) * 2 * group.dimension, mode=mode).unflatten(1, (2, group.order))
    unpadded = seeded(GroupConv(group, 2, 2, pad=False))
    unpadded.load_state_dict(layer.state_dict())
    assert torch.allclose(layer(x), unpadded(padded), atol=TOLERANCE)
    assert torch.allclose(layer.export()(x.flatten(1, 2)), layer(x).flatten(1, 2), atol=TOLERANCE)


def test_dilation_reads_every_second_voxel():
    group = make_group("O")
    layer, x = seeded(GroupConv(group, 1, 1, dilation=2, pad=False)), features(group, side=5, fields=1)
    dense = seeded(GroupConv(group, 1, 1, pad=False))
    dense.load_state_dict(layer.state_dict())
    assert torch.allclose(layer(x), dense(x[..., ::2, ::2, ::2]), atol=TOLERANCE)


# Axes of different size


@pytest.mark.parametrize("name", KEEP_Z)
def test_groups_that_keep_z_commute_on_flat_grids_with_flat_kernels(name):
    group = make_group(name)
    flat = random(2, 2, 4, 7, 7)
    lifted = random(2, 2, group.order, 3, 6, 6)
    assert error_of(seeded(LiftingConv(group, 2, 2, (1, 3, 3))), flat, group, act_on_image) < TOLERANCE
    for layer in (
        GroupConv(group, 2, 2, (1, 3, 3)),
        GroupConv(group, 2, 2, (3, 6, 6), pad=False),
        GroupConv(group, 2, 2, (1, 2, 2), pad=False, stride=(1, 2, 2)),
        GroupConv(group, 2, 2, (1, 3, 3), dilation=(1, 2, 2)),
        SeparableGroupConv(group, 2, 2, (1, 3, 3)),
        TransposedGroupConv(group, 2, 2, (1, 2, 2)),
        MaxPool(group, (1, 2, 2)),
        MeanPool(group, (3, 2, 2)),
        BlurPool(group, (1, 2, 2)),
        Upsample(group, (1, 2, 2), "linear"),
    ):
        assert error_of(seeded(layer), lifted, group) < TOLERANCE, layer


@pytest.mark.parametrize("name", ["O", "Oh"])
def test_groups_that_mix_axes_refuse_what_differs_along_them(name):
    group = make_group(name)
    reason = f"{name} exchanges the axes z and y, along which the .* is [13] and [123]"
    for make in (
        lambda: LiftingConv(group, 1, 1, (1, 3, 3)),
        lambda: GroupConv(group, 1, 1, (1, 3, 3)),
        lambda: GroupConv(group, 1, 1, 2, pad=False, stride=(1, 2, 2)),
        lambda: GroupConv(group, 1, 1, dilation=(1, 2, 2)),
        lambda: SeparableGroupConv(group, 1, 1, (1, 3, 3)),
        lambda: MaxPool(group, (1, 2, 2)),
        lambda: BlurPool(group, (1, 2, 2)),
        lambda: Upsample(group, (1, 2, 2)),
    ):
        with pytest.raises(ModelError, match=reason):
            make()
    assert not turns(group, (12, 72, 72))
    assert turns(make_group("D4h"), (12, 72, 72))
    assert not turns(make_group("C4"), (72, 12, 72))


def test_a_pool_can_share_weights_without_the_law():
    group, x = make_group("O"), features(make_group("O"))
    pool = MaxPool(group, (1, 2, 2), weight_sharing=True)
    assert pool(x).shape[3:] == (6, 3, 3)
    turned = pool(act_on_features(x, 1, group))
    assert turned.shape[3:] == (6, 3, 3)  # and not (3, 6, 3), as the law would have it for some elements


@pytest.mark.parametrize("sides", [(1, 2), (0,), 0, (3, 3, 3, 3), 1.5, "3"])
def test_sides_are_whole_numbers_for_each_axis(sides):
    with pytest.raises(ModelError, match="the side of a kernel must be a whole number"):
        LiftingConv(make_group("D4"), 1, 1, sides)


# Separable convolution


@pytest.mark.parametrize("name", GENERATORS)
def test_a_separable_convolution_is_a_full_one_with_a_product_for_a_kernel(name):
    """w(c', c, h, u) = mix(c', c, h) spread(c', u): checked against GroupConv."""
    group = make_group(name)
    layer = seeded(SeparableGroupConv(group, 2, 3))
    ones = (1,) * group.dimension
    full = seeded(GroupConv(group, 2, 3))
    with torch.no_grad():
        full.weight.copy_(layer.mix.weight.view(3, 2, group.order, *ones) * layer.spread.weight)
        full.bias.copy_(layer.spread.bias)
    x = features(group)
    assert torch.allclose(layer(x), full(x), atol=TOLERANCE)


@pytest.mark.parametrize("name", BOTH)
def test_a_fieldwise_kernel_that_is_not_turned_is_noticed(name):
    group = make_group(name)
    layer = seeded(FieldwiseConv(group, 2))
    same = layer.weight.flatten(0, 1).repeat_interleave(group.order, 0).detach()
    convolution = F.conv3d if group.dimension == 3 else F.conv2d

    def wrong(x):
        return convolution(x.flatten(1, 2), same, padding=1, groups=len(same)).view_as(x)

    assert error_of(wrong, features(group), group) > BROKEN
    assert error_of(layer, features(group), group) < TOLERANCE


@pytest.mark.parametrize("bias", [False, True])
def test_a_fieldwise_layer_and_its_export_agree(bias):
    group = make_group("D4")
    layer, x = seeded(FieldwiseConv(group, 2, bias=bias)), features(make_group("D4"))
    assert torch.allclose(layer.export()(x.flatten(1, 2)), layer(x).flatten(1, 2), atol=TOLERANCE)


# Restriction

SUBGROUPS = [("Oh", "O"), ("Oh", "D4h"), ("O", "D4"), ("O", "C4"), ("D4h", "C4h"), ("O", "trivial"), ("p4m", "p4")]


@pytest.mark.parametrize(("name", "sub"), SUBGROUPS)
def test_a_restriction_commutes_with_the_subgroup(name, sub):
    group, subgroup = make_group(name), make_group(sub)
    layer, x = RestrictGroup(group, subgroup), features(group)
    y = layer(x)
    assert y.shape[1:3] == (2 * group.order // subgroup.order, subgroup.order)
    assert torch.equal(y.flatten(1).sort()[0], x.flatten(1).sort()[0])  # nothing is lost
    for k, matrix in enumerate(subgroup.matrices):
        g = next(g for g, m in enumerate(group.matrices) if (m == matrix).all())
        assert torch.equal(layer(act_on_features(x, g, group)), act_on_features(y, k, subgroup))


def test_a_restriction_by_the_other_cosets_is_noticed():
    """Left cosets t H in place of right ones: the law must fail for a subgroup that is not normal."""
    group, subgroup = make_group("O"), make_group("C4")
    layer, x = RestrictGroup(group, subgroup), features(group)
    elements = [next(g for g, m in enumerate(group.matrices) if (m == own).all()) for own in subgroup.matrices]
    left, seen = [], set()
    for t in range(group.order):
        if t not in seen:
            left.append(group.product[t, elements])
            seen.update(left[-1].tolist())
    layer.places = torch.from_numpy(np.concatenate(left))
    turned = layer(act_on_features(x, elements[1], group))
    assert not torch.allclose(turned, act_on_features(layer(x), 1, subgroup), atol=BROKEN)


def test_what_is_no_subgroup_is_refused():
    for name, sub in (("D4", "O"), ("O", "D4h"), ("O", "p4")):
        with pytest.raises(ModelError, match=f"{sub} is not a subgroup of {name}"):
            RestrictGroup(make_group(name), make_group(sub))


# Dropout, pools, upsampling


@pytest.mark.parametrize("name", BOTH)
def test_dropout_drops_whole_fields_and_commutes_for_one_draw(name):
    group = make_group(name)
    layer, x = FieldDropout(group, 0.5), features(group, fields=16) + 10

    def drawn(x):
        torch.manual_seed(3)
        return layer.train()(x)

    y = drawn(x)
    dropped = (y == 0).flatten(2).all(dim=2)
    assert torch.equal(dropped, (y == 0).flatten(2).any(dim=2))
    assert 0 < dropped.sum() < dropped.numel()
    assert torch.allclose(y[~dropped], 2 * x[~dropped])
    assert error_of(drawn, x, group) < TOLERANCE
    assert layer.eval()(x) is x


def test_dropout_of_channels_is_noticed():
    group = make_group("O")
    drop = nn.Dropout3d(0.5).train()

    def drawn(x):
        torch.manual_seed(3)
        return drop(x.flatten(1, 2)).view_as(x)

    assert error_of(drawn, features(group), group) > BROKEN


@pytest.mark.parametrize("side", [2, 3])
@pytest.mark.parametrize("name", GENERATORS)
def test_pools_and_upsampling_commute(name, side):
    group, x = make_group(name), features(make_group(name))
    for layer in (
        MaxPool(group, side),
        MeanPool(group, side),
        BlurPool(group, side),
        Upsample(group, side),
        Upsample(group, side, "linear"),
    ):
        assert error_of(layer, x, group) < TOLERANCE


def test_what_the_blur_and_the_upsampling_compute():
    group = make_group("p4")
    x = torch.zeros(1, 1, 4, 8, 8, dtype=torch.float64)
    x[..., 3, 3] = 64
    blurred = BlurPool(group)(x)
    assert blurred[0, 0, 0, 1, 1] == 9
    assert blurred[0, 0, 0, 2, 1] == blurred[0, 0, 0, 1, 2] == 3
    assert blurred[0, 0, 0, 2, 2] == 1
    assert torch.allclose(BlurPool(group)(torch.ones_like(x)), torch.ones(()).double())
    assert torch.equal(MeanPool(group)(Upsample(group)(x)), x)
    assert torch.equal(Upsample(group)(x)[..., ::2, ::2], x)


@pytest.mark.parametrize("name", BOTH)
def test_a_blur_with_an_odd_kernel_is_noticed(name):
    group = make_group(name)
    pool = nn.AvgPool3d(3, 2, 1) if group.dimension == 3 else nn.AvgPool2d(3, 2, 1)
    assert error_of(lambda x: pool(x.flatten(1, 2)).unflatten(1, x.shape[1:3]), features(group), group) > BROKEN


def test_layers_of_another_group_are_named_with_both_sides():
    x = features(make_group("D4"))
    for layer in (
        GroupConv(make_group("O"), 2, 2),
        FieldwiseConv(make_group("O"), 2),
        SeparableGroupConv(make_group("O"), 2, 2),
        FieldDropout(make_group("O")),
        Upsample(make_group("O")),
        BlurPool(make_group("O")),
        GroupPool(make_group("O")),
        RestrictGroup(make_group("O"), make_group("C4")),
    ):
        with pytest.raises(ModelError, match="O takes maps .*, 24, D, H, W.*got .*: 2 fields of C4h or D4"):
            layer(x)
    with pytest.raises(ModelError, match="3 fields of D4 takes maps .B, 3, 8, D, H, W., got .* 2 fields of C4h or D4"):
        GroupConv(make_group("D4"), 3, 2)(x)
    with pytest.raises(ModelError, match="p4m takes maps"):
        GroupConv(make_group("p4m"), 2, 2)(x)


# The kept expansion


@pytest.mark.parametrize("make", [GroupConv, SeparableGroupConv, TransposedGroupConv])
@torch.no_grad()
def test_every_change_of_the_weights_drops_the_kept_expansion(make):
    group, x = make_group("O"), features(make_group("O"))
    layer = seeded(make(group, 2, 2))
    weights = [p for name, p in layer.named_parameters() if name.endswith("weight")]

    def follows():
        kept = layer(x)
        fresh = copy.deepcopy(layer).train()(x)  # training mode expands anew
        return torch.allclose(kept, fresh, atol=TOLERANCE)

    assert follows()
    changes = [
        lambda w: w.mul_(2),
        lambda w: w.data.mul_(0.5),  # which no version counter sees
        lambda w: setattr(w, "data", torch.randn_like(w)),
        lambda w: w.detach().numpy().__imul__(3),
    ]
    for change in changes:
        before = layer(x)
        for w in weights:
            change(w)
        assert not torch.allclose(layer(x), before)
        assert follows()
    state = {name: torch.randn_like(value) for name, value in layer.state_dict().items()}
    layer.load_state_dict(state)
    assert follows()
    layer.float()
    assert layer(x.float()).dtype == torch.float32


def test_the_expansion_is_kept_only_where_no_gradient_needs_it():
    group, x = make_group("O"), features(make_group("O"))
    layer = seeded(GroupConv(group, 2, 2))
    calls = []
    original = layer.expanded_weight
    layer.expanded_weight = lambda: calls.append(1) or original()
    with torch.inference_mode():
        layer(x), layer(x)
    with torch.no_grad():
        layer(x)
    assert len(calls) == 1
    layer(x).sum().backward()
    assert len(calls) == 2
    assert layer.weight.grad is not None
    x.requires_grad_(True)
    layer.requires_grad_(False)
    layer(x).sum().backward()  # uses what inference mode kept
    assert len(calls) == 2
    layer.train()(x)
    assert len(calls) == 3


def test_copies_and_files_do_not_contain_the_kept_expansion(tmp_path):
    group, x = make_group("O"), features(make_group("O"))
    layer = seeded(GroupConv(group, 2, 2))
    torch.save(layer, tmp_path / "first")
    with torch.no_grad():
        expected = layer(x)
    torch.save(layer, tmp_path / "later")
    assert (tmp_path / "later").stat().st_size == (tmp_path / "first").stat().st_size
    assert set(layer.state_dict()) == {"weight", "bias"}
    assert torch.equal(copy.deepcopy(layer)(x), expected)
    assert torch.equal(torch.load(tmp_path / "later", weights_only=False)(x), expected)


def test_layers_show_their_options():
    group = make_group("D4")
    for layer, line in (
        (
            GroupConv(group, 1, 2, (1, 3, 3), dilation=(1, 2, 2), padding_mode="reflect"),
            "GroupConv(D4, 1, 2, side=1x3x3, stride=1, padding=0x2x2, dilation=1x2x2, padding_mode=reflect, bias=True)",
        ),
        (FieldwiseConv(group, 2), "FieldwiseConv(D4, 1, 2, side=3, stride=1, padding=1, bias=True)"),
        (MaxPool(group, (1, 2, 2)), "MaxPool(D4, side=1x2x2)"),
        (Upsample(group), "Upsample(D4, side=2, nearest)"),
        (FieldDropout(group, 0.2), "FieldDropout(D4, 0.2)"),
        (RestrictGroup(group, make_group("C4")), "RestrictGroup(D4 -> C4, each field becomes 2)"),
    ):
        assert str(layer) == line


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda g: GroupConv(g, 0, 1), "fields on both sides, got 0 and 1"),
        (lambda g: GroupConv(g, 1, 1, padding_mode="mirror"), "padding_mode must be one of"),
        (lambda g: GroupConv(g, 1, 1, 5, pad=False)(features(g, 4, 1).float()), "spans 5 does not fit a grid of 4"),
        (lambda g: FieldDropout(g, 1.0), "in .0, 1., got 1.0"),
        (lambda g: Upsample(g, 2, "cubic"), "'nearest' or 'linear'"),
        (lambda g: MaxPool(g, 3)(features(g, 4)), "pooling by 3 needs a grid that it divides"),
    ],
)
def test_impossible_layers_are_refused(make, message):
    with pytest.raises(ModelError, match=message):
        make(make_group("O"))
