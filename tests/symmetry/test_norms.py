"""The optimized norm equals its definition: values, gradients, running statistics."""

import copy

import pytest
import torch
from torch import nn

from gcnn_cli.symmetry.groups import make_group
from gcnn_cli.symmetry.norms import FieldNorm


@pytest.mark.parametrize("name", ["trivial", "O", "p4m"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_optimization_equals_the_definition(name, channels_last):
    group = make_group(name)
    generator = torch.Generator().manual_seed(1)
    grid = (4,) * group.dimension
    x = 3 + 2 * torch.randn(2, 3, group.order, *grid, dtype=torch.float64, generator=generator)
    if channels_last:
        layout = torch.channels_last_3d if group.dimension == 3 else torch.channels_last
        x = x.flatten(1, 2).to(memory_format=layout).unflatten(1, (3, group.order))
    pull = torch.randn(x.shape, dtype=torch.float64, generator=generator)
    layer = FieldNorm(group, 3).double()
    nn.init.normal_(layer.norm.weight, generator=generator)
    nn.init.normal_(layer.norm.bias, generator=generator)
    expected = copy.deepcopy(layer)
    ours, theirs = (x.clone().requires_grad_(True) for _ in range(2))
    for _ in range(2):  # the second step starts from other running statistics
        y, z = layer(ours), expected.definition(theirs)
        torch.testing.assert_close(y, z, rtol=1e-12, atol=1e-12)
        (y * pull).sum().backward()
        (z * pull).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-10)
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(layer.state_dict()[key], value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.norm.weight.grad, expected.norm.weight.grad, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(layer.norm.bias.grad, expected.norm.bias.grad, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(layer.eval()(x), expected.eval().definition(x), rtol=1e-12, atol=1e-12)
    scale, shift = layer.scale_and_shift()
    shape = (3, 1, *(1,) * group.dimension)
    torch.testing.assert_close(layer(x), x * scale.view(shape) + shift.view(shape), rtol=1e-10, atol=1e-10)


def test_a_field_that_does_not_vary_stays_finite():
    x = torch.full((2, 1, 24, 2, 2, 2), 5.0, requires_grad=True)
    layer = FieldNorm(make_group("O"), 1)
    layer(x).square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert float(layer.norm.running_var[0]) < 1
