"""Several networks as one: the mean of their logits, in one file, looked at no more often than their symmetry asks."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from conftest import make_network
from safetensors import safe_open
from safetensors.torch import save_file

from gcnn_cli.errors import ModelError
from gcnn_cli.network.architecture import GCNN, NetworkConfig
from gcnn_cli.network.committee import Committee, check_values, members_of, shares_of
from gcnn_cli.network.contract import Calibration, InputSpec
from gcnn_cli.network.inference import make_scorer
from gcnn_cli.network.verify import TOLERANCE, invariance_errors
from gcnn_cli.network.weights import (
    COMMITTEE_FORMAT,
    FORMAT,
    SCORING_FORMATS,
    TrainedModel,
    load_model,
    read_weights,
    save_model,
)
from gcnn_cli.symmetry.actions import rotate
from gcnn_cli.symmetry.groups import GENERATORS, make_group

CPU = torch.device("cpu")
GROUPS = [name for name in GENERATORS if not name.startswith("p")]


def networks(group, count=3):
    """Networks of one configuration and different weights."""
    return [make_network(group, seed=seed) for seed in range(count)]


def patches(count=4):
    return torch.randn(count, 1, 8, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def model():
    return TrainedModel("several", Committee(networks("O")), InputSpec(side=8), Calibration(), {"members": ["a", "b"]})


def test_a_committee_is_the_mean_of_its_members():
    members, x = networks("O"), patches()
    scores = make_scorer(Committee(members), CPU, bfloat16=False).score([x])
    alone = [make_scorer(member, CPU, bfloat16=False).score([x]) for member in members]
    assert np.ptp(alone, axis=0).min() > 1e-3
    assert np.allclose(scores, np.mean(alone, axis=0), atol=1e-6)


@pytest.mark.parametrize(("group", "over"), list(itertools.product(GROUPS, repeat=2)))
def test_looks_saved_by_symmetry_change_no_average(group, over):
    network, x = make_network(group), patches(2)
    scores = make_scorer(network, CPU, average_over=over, bfloat16=False).score([x])
    with torch.no_grad():
        every = torch.stack([network(rotate(x, matrix)) for matrix in make_group(over).matrices]).mean(dim=0)
    assert np.allclose(scores, every.numpy(), atol=1e-5)


def test_a_network_with_o_looks_twice_for_the_mean_over_oh():
    network, sizes = make_network("O"), []

    class Counting(torch.nn.Module):
        def forward(self, x):
            sizes.append(len(x))
            return network(x)

    scorer = make_scorer(network, CPU, average_over="Oh", bfloat16=False)
    object.__setattr__(scorer, "network", Counting())
    scorer.score([patches(8)])  # a full part: smaller ones are filled up
    assert sizes == [8, 8]


def test_a_committee_of_invariant_networks_is_invariant():
    assert max(e.error for e in invariance_errors(Committee(networks("O")))) <= TOLERANCE
    assert max(e.error for e in invariance_errors(Committee(networks("trivial")), group="O")) > TOLERANCE


def test_a_committee_comes_back_from_its_file(model, tmp_path):
    path = tmp_path / "several.safetensors"
    save_model(model, path)
    loaded = load_model(str(path))
    assert torch.equal(loaded.network(patches()), model.network(patches()))
    assert len(members_of(loaded.network)) == 3
    assert loaded.provenance == {"members": ["a", "b"]}
    assert loaded.network.parameters_count == 3 * make_network("O").parameters_count


def test_unequal_networks_are_no_committee():
    with pytest.raises(ModelError, match="the same configuration"):
        Committee([make_network("O"), make_network("D4")])
    with pytest.raises(ModelError, match="at least one"):
        Committee([])


@pytest.mark.parametrize("members", ["2", "4", "1000000000", "0", "1", "-1", "true", '"3"', "3.0"])
def test_a_header_with_another_number_of_members_is_refused(model, tmp_path, members):
    path = tmp_path / "several.safetensors"
    save_model(model, path)
    with safe_open(path, framework="pt") as file:
        header = file.metadata()["gcnn"].replace('"members": 3', f'"members": {members}')
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    save_file(state, path, metadata={"gcnn": header})
    with pytest.raises(ModelError, match="do not match"):
        load_model(str(path))


def test_a_large_network_of_few_tensors_is_never_built(monkeypatch):
    monkeypatch.setattr(GCNN, "__init__", lambda *_: pytest.fail("built"))
    with pytest.raises(ValueError, match="differ in size"):
        check_values(NetworkConfig(), 2, {str(n): torch.zeros(1) for n in range(99)})


# Members that count unequally


SHARES = (0.125, 0.25, 0.625)


@pytest.fixture
def unequal():
    return TrainedModel("unequal", Committee(networks("O"), SHARES), InputSpec(side=8), Calibration())


def test_shares_weigh_the_logits(unequal):
    x = patches()
    alone = [make_scorer(member, CPU, bfloat16=False).score([x]) for member in members_of(unequal.network)]
    wanted = sum(share * scores for share, scores in zip(SHARES, alone, strict=True))
    assert np.allclose(make_scorer(unequal.network, CPU, bfloat16=False).score([x]), wanted, atol=1e-6)
    with torch.no_grad():
        assert np.allclose(unequal.network(x).numpy(), wanted, atol=1e-6)
    assert np.abs(wanted - np.mean(alone, axis=0)).max() > 1e-3


def test_shares_come_back_from_the_file(unequal, model, tmp_path):
    path, equal = tmp_path / "unequal.safetensors", tmp_path / "equal.safetensors"
    save_model(unequal, path)
    assert shares_of(load_model(str(path)).network) == SHARES
    save_model(model, equal)
    header, _, _ = read_weights(equal, SCORING_FORMATS)
    assert header["format"] == COMMITTEE_FORMAT  # as before there were shares
    assert "shares" not in header


def test_a_version_without_shares_refuses_them(unequal, tmp_path):
    path = tmp_path / "unequal.safetensors"
    save_model(unequal, path)
    with pytest.raises(ModelError, match="weights of format 4"):
        read_weights(path, (FORMAT, COMMITTEE_FORMAT))


@pytest.mark.parametrize(
    "shares", [(0.5, 0.5), (0.5, 0.5, 0.0), (0.5, 0.5, 0.5), (-0.5, 0.5, 1.0), (0.5, math.nan, 0.5)]
)
def test_impossible_shares_are_refused(shares):
    with pytest.raises(ModelError, match="share"):
        Committee(networks("O"), shares)


@pytest.mark.parametrize("shares", ["[0.5, 0.5]", "[1, 1, 1]", "3", "null", '["a", "b", "c"]', "[[0.5], 0.25, 0.25]"])
def test_a_header_with_other_shares_is_refused(unequal, tmp_path, shares):
    path = tmp_path / "unequal.safetensors"
    save_model(unequal, path)
    with safe_open(path, framework="pt") as file:
        header = file.metadata()["gcnn"].replace(f'"shares": {json.dumps(SHARES)}', f'"shares": {shares}')
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    assert f'"shares": {shares}' in header
    save_file(state, path, metadata={"gcnn": header})
    with pytest.raises(ModelError):
        load_model(str(path))
