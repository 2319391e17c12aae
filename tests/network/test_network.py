"""Whole networks: invariant for every element, and the same when folded."""

import pytest
import torch
from conftest import make_network
from network.patches import patches

from gcnn_cli.errors import ModelError
from gcnn_cli.network.architecture import FIELDS, GCNN, NetworkConfig
from gcnn_cli.network.inference import FoldedGCNN
from gcnn_cli.network.verify import TOLERANCE, invariance_errors
from gcnn_cli.symmetry.actions import act_on_image
from gcnn_cli.symmetry.groups import GENERATORS, make_group
from gcnn_cli.symmetry.laws import equivariance_error, invariant


@pytest.mark.parametrize("name", GENERATORS)
def test_the_score_ignores_orientation(name):
    network = make_network(name).double()
    error = equivariance_error(network, patches(name), network.group, act_on_image, invariant)
    assert error < 1e-10


@pytest.mark.parametrize("name", GENERATORS)
def test_a_training_step_keeps_the_law(name):
    """Untied parameters, the defect of the first published code, drift apart in training."""
    network = make_network(name).double().train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(3):
        loss = torch.nn.functional.softplus(network(patches(name, count=6))).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    assert equivariance_error(network, patches(name), network.group, act_on_image, invariant) < 1e-10


def test_the_plain_network_is_not_invariant():
    network = make_network("trivial").double()
    assert equivariance_error(network, patches("O"), make_group("O"), act_on_image, invariant) > 1e-2


def test_verify_finds_what_is_and_what_is_not_invariant():
    assert max(e.error for e in invariance_errors(make_network("O"))) <= TOLERANCE
    assert max(e.error for e in invariance_errors(make_network("trivial"), group="O")) > TOLERANCE


@pytest.mark.parametrize("name", GENERATORS)
def test_folding_changes_nothing(name):
    network = make_network(name).double()
    x = patches(name)
    assert torch.allclose(FoldedGCNN(network)(x), network(x), atol=1e-10)


def test_folding_needs_fixed_norms():
    with pytest.raises(ModelError, match="eval"):
        FoldedGCNN(make_network("O").train())


def test_the_pooling_over_the_group_can_be_a_mean():
    config = NetworkConfig(group="O", fields=(2, 2), pool_after=(1,), side=8, head_fields=3, group_pool="mean")
    network = GCNN(config).double().eval()
    assert equivariance_error(network, patches("O"), network.group, act_on_image, invariant) < 1e-10
    assert torch.allclose(FoldedGCNN(network)(patches("O")), network(patches("O")), atol=1e-10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"side": 30}, "divisible by 8"),
        ({"group": "C5"}, "unknown group"),
        ({"fields": ()}, "at least one field"),
        ({"pool_after": (9,)}, "outside"),
        ({"group_pool": "median"}, "'max' or 'mean'"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_impossible_configs_are_refused(changes, message):
    with pytest.raises(ModelError, match=message):
        NetworkConfig(**changes)


@pytest.mark.parametrize("group", FIELDS)
def test_fields_follow_from_the_group(group):
    config = NetworkConfig(group=group)
    assert config.fields == FIELDS[group]
    assert NetworkConfig(group=group, fields=(1, 2), pool_after=()).fields == (1, 2)
    parameters = GCNN(
        config
    ).parameters_count  # equal capacity: no group has less than half or more than twice the parameters of O
    assert 0.5 < parameters / GCNN(NetworkConfig(group="O")).parameters_count < 2


@pytest.mark.parametrize("group", sorted(GENERATORS.keys() - FIELDS.keys()))
def test_a_group_without_default_fields_needs_them(group):
    with pytest.raises(ModelError, match=f"fields must be given for group {group}"):
        NetworkConfig(group=group)


@pytest.mark.parametrize("group", ["trivial", "O", "D4h"])
def test_the_size_of_a_network_is_known_before_it_is_made(group):
    config = NetworkConfig(group=group, fields=(2, 3, 1), pool_after=(2,), side=8, head_fields=5)
    kernels = [value for name, value in GCNN(config).state_dict().items() if name.endswith("conv.weight")]
    assert config.kernel_values == sum(value.numel() for value in kernels)


def test_a_patch_of_another_size_is_refused(network):
    with pytest.raises(ModelError, match="patches of shape"):
        network(torch.zeros(1, 1, 9, 9, 9))
