"""The norm of fields is torch's norm of the same numbers laid out as one channel for each field."""

import copy

import pytest
import torch
from torch import nn

from gcnn_cli.symmetry.groups import make_group
from gcnn_cli.symmetry.norms import FieldNorm


def plain(norm: nn.BatchNorm3d, x: torch.Tensor) -> torch.Tensor:
    """torch's batch normalization of [B, C, G, *grid] with the orientations as one more axis of the grid.

    Of a contiguous copy: for some strides torch 2.13 gives wrong gradients.
    """
    return norm(x.contiguous().flatten(3).unsqueeze(-1)).view_as(x)


@pytest.mark.parametrize("name", ["trivial", "O", "p4m"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_values_gradients_and_running_statistics(name, channels_last):
    group = make_group(name)
    generator = torch.Generator().manual_seed(1)
    grid = (4,) * group.dimension
    x = 3 + 2 * torch.randn(2, 3, group.order, *grid, dtype=torch.float64, generator=generator)
    if channels_last:
        layout = torch.channels_last_3d if group.dimension == 3 else torch.channels_last
        x = x.flatten(1, 2).to(memory_format=layout).unflatten(1, (3, group.order))
    pull = torch.randn(x.shape, dtype=torch.float64, generator=generator)
    layer = FieldNorm(3).double()
    nn.init.normal_(layer.norm.weight, generator=generator)
    nn.init.normal_(layer.norm.bias, generator=generator)
    expected = copy.deepcopy(layer.norm)
    ours, theirs = (x.clone().requires_grad_(True) for _ in range(2))
    for _ in range(2):  # the second step starts from running statistics that are not the first ones
        y, z = layer(ours), plain(expected, theirs)
        torch.testing.assert_close(y, z, rtol=1e-12, atol=1e-12)
        (y * pull).sum().backward()
        (z * pull).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-10, atol=1e-10)
    for key, value in expected.state_dict().items():
        torch.testing.assert_close(layer.norm.state_dict()[key], value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.norm.weight.grad, expected.weight.grad, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(layer.norm.bias.grad, expected.bias.grad, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(layer.eval()(x), plain(expected.eval(), x), rtol=1e-12, atol=1e-12)
    scale, shift = layer.scale_and_shift()
    shape = (3, 1, *(1,) * group.dimension)
    torch.testing.assert_close(layer(x), x * scale.view(shape) + shift.view(shape), rtol=1e-10, atol=1e-10)


def test_a_field_that_does_not_vary_stays_finite():
    x = torch.full((2, 1, 24, 2, 2, 2), 5.0, requires_grad=True)
    layer = FieldNorm(1)
    layer(x).square().sum().backward()
    assert torch.isfinite(x.grad).all()
    assert float(layer.norm.running_var[0]) < 1
