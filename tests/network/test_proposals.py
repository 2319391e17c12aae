"""The proposal network: a patch gives what the whole gives, and a turned patch a turned map."""

import numpy as np
import pytest
import torch

from gcnn_cli.errors import ModelError
from gcnn_cli.network import proposal_map
from gcnn_cli.network.proposal_map import make_mapper
from gcnn_cli.network.proposals import ProposalNetwork, ProposalNetworkConfig
from gcnn_cli.symmetry.actions import act_on_image
from gcnn_cli.symmetry.laws import equivariance_error

SMALL = ProposalNetworkConfig(fields=(1, 1, 1, 2), head_fields=2)


def network(config=SMALL):
    """Double precision, with norms that do something."""
    torch.manual_seed(0)
    made = ProposalNetwork(config).double()
    made(torch.randn(2, 1, 32, 32, 32, dtype=torch.float64))
    return made.eval()


def scan(*shape):
    return torch.randn(1, 1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("group", ["trivial", "O", "Oh"])
def test_a_turned_patch_gives_a_turned_map(group):
    made = network(ProposalNetworkConfig(group, SMALL.fields, SMALL.head_fields))
    with torch.no_grad():
        assert equivariance_error(made, scan(24, 24, 24), made.group, act_on_image, act_on_image) < 1e-10


@torch.no_grad()
def test_a_patch_gives_what_the_whole_gives_there():
    made, whole = network(), scan(28, 32, 24)
    rf = made.config.receptive_field
    every = made(whole)
    assert every.shape[1:] == tuple((side - rf) // 2 + 2 for side in (28, 32, 24))
    for z, y, x in ((0, 0, 0), (4, 8, 4), (12, 16, 8)):
        patch = made(whole[..., z : z + rf, y : y + rf, x : x + rf])
        assert torch.allclose(patch, every[:, z // 2 : z // 2 + 2, y // 2 : y // 2 + 2, x // 2 : x // 2 + 2])


@torch.no_grad()
def test_places_lie_in_the_middle_of_what_they_see():
    config = SMALL
    places = config.first_place + 2 * torch.arange(2)
    assert float(places.mean()) == (config.receptive_field - 1) / 2
    assert network()(scan(*(config.receptive_field,) * 3)).shape == (1, 2, 2, 2)


@pytest.mark.parametrize("shape", [(15, 16, 16), (16, 12, 16), (18, 16, 16)])
def test_a_side_that_windows_do_not_tile_is_refused(shape):
    with pytest.raises(ModelError, match="patches of 16"):
        network()(scan(*shape))


@pytest.mark.parametrize("fields", [(1, 1, 1), (1, 1, 0, 1), (1, 1, 1, 1.0)])
def test_a_network_that_cannot_be_is_refused(fields):
    with pytest.raises(ModelError, match="at least 4 convolutions"):
        ProposalNetworkConfig(fields=fields)


def test_a_planar_group_is_refused():
    with pytest.raises(ModelError, match="three dimensions"):
        ProposalNetworkConfig("p4")


@torch.no_grad()
@pytest.mark.parametrize("slab", [90, 9, 3])
@pytest.mark.parametrize("fields", [(1, 1, 1, 2), (2, 1, 1, 1, 2)])
def test_a_map_by_blocks_is_the_map_of_the_whole(fields, slab, monkeypatch):
    monkeypatch.setattr(proposal_map, "_SLAB", slab)  # with 3, the slabs between the wanted places hold none
    made = network(ProposalNetworkConfig(fields=fields)).float()
    image = scan(110, 50, 45)[0, 0].float().numpy()
    wanted = np.zeros(image.shape, bool)
    wanted[9:20, 3:30, 7:9] = wanted[85:92, 30:44, 30:33] = True  # the blocks between are left out
    logits, first = make_mapper(made, torch.device("cpu"), bfloat16=False).logits(
        image / 2, wanted, beyond=-0.25, scale=lambda x: 2 * x
    )
    margin = (made.config.receptive_field - 4) // 2
    low, size = np.array([9, 3, 7]), 2 * np.array(logits.shape)
    assert np.array_equal(first, low + 0.5)
    padded = np.pad(image, 64, constant_values=-0.5)
    box = tuple(slice(a + 64 - margin, a + 64 + margin + s) for a, s in zip(low, size, strict=True))
    whole = made(torch.from_numpy(padded[box])[None, None])[0].numpy()
    index = np.argwhere(wanted)
    places = tuple(((index - low) // 2).T)
    assert np.isfinite(logits[places]).all()
    assert np.allclose(logits[places], whole[places], atol=1e-4)
    assert not np.isfinite(logits).all()
