"""Patches whose axes differ: invariance where the group keeps z, refusal or weight sharing alone where it does not."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import make_network
from safetensors import safe_open
from typer.testing import CliRunner

from gcnn_cli.cli import app
from gcnn_cli.errors import ModelError
from gcnn_cli.network.architecture import GCNN, NetworkConfig
from gcnn_cli.network.contract import Calibration, InputSpec
from gcnn_cli.network.inference import FoldedGCNN, make_scorer
from gcnn_cli.network.verify import TOLERANCE, invariance_errors
from gcnn_cli.network.weights import TrainedModel, load_model, save_model
from gcnn_cli.symmetry.actions import act_on_image
from gcnn_cli.symmetry.groups import make_group
from gcnn_cli.symmetry.laws import equivariance_error, invariant
from gcnn_cli.training.article import ARTICLE_NETWORKS, article_network

KEEP_Z = ["trivial", "C4", "C4h", "D4", "D4h"]
FLAT = {"fields": (2, 3), "pool_after": (1,), "pools": ((1, 2, 2),), "side": (5, 8, 8), "head_fields": 4}
SHARED = {**FLAT, "head": "flatten", "weight_sharing": True}
SPEC = InputSpec(spacing_mm=(2.5, 1.0, 1.0), side=(5, 8, 8))
CPU = torch.device("cpu")


def network(group, **options):
    made = GCNN(NetworkConfig(group=group, **{**FLAT, **options}))
    made.load_state_dict(randomized(made))
    return made.eval()


def randomized(made):
    """Variances away from 0, near which a norm magnifies the rounding of float32."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(value.shape, generator=generator) - (-0.5 if "running_var" in name else 0.3)
        if value.is_floating_point()
        else value
        for name, value in made.state_dict().items()
    }


def patches(count=3):
    return torch.randn(count, 1, 5, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("kernel", [3, (1, 3, 3)])
@pytest.mark.parametrize("group", KEEP_Z)
def test_groups_that_keep_z_are_symmetries_of_flat_patches(group, kernel):
    made = network(group, kernel=kernel).double()
    assert made.config.invariant_under == group
    assert equivariance_error(made, patches(), made.group, act_on_image, invariant) < 1e-10
    assert torch.allclose(FoldedGCNN(made)(patches()), made(patches()), atol=1e-10)
    assert max(e.error for e in invariance_errors(made.float())) <= TOLERANCE


@pytest.mark.parametrize("group", ["D4", "D4h"])
def test_the_head_of_the_article_is_not_invariant(group):
    made = network(group, head="flatten").double()
    assert made.config.invariant_under == "trivial"
    assert equivariance_error(made, patches(), made.group, act_on_image, invariant) > 1e-3
    assert torch.allclose(FoldedGCNN(made)(patches()), made(patches()), atol=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "O exchanges the axes z and y, along which the patch is 5 and 8: .* weight_sharing = true accepts this"),
        ({"side": 8, "pools": ((1, 2, 2),)}, "along which the block of a pooling is 1 and 2"),
        ({"side": 8, "pools": (), "kernel": (1, 3, 3)}, "along which the kernel is 1 and 3"),
        ({"weight_sharing": True}, "a kernel over a map of 5x4x4 can't be turned by O: use head 'flatten'"),
        ({**SHARED, "kernel": (1, 3, 3)}, "along which the kernel is 1 and 3"),
        ({"group": "D4", "side": (5, 10, 8)}, "y and x, along which the patch is 10 and 8"),
        ({"group": "D4", "side": (5, 7, 7)}, "divisible by 2 for 1 pool"),
        ({"group": "D4", "kernel": 2}, "odd sides"),
        ({"group": "D4", "pools": (2, 2)}, "one entry for each"),
        ({"group": "D4", "side": (8, 8)}, "the side of a patch must be"),
        ({"group": "D4", "head": "mean"}, "head must be 'span' or 'flatten'"),
        ({"group": "D4", "weight_sharing": 1}, "must be true or false"),
    ],
)
def test_what_is_no_symmetry_is_refused_with_the_reason(options, message):
    with pytest.raises(ModelError, match=message):
        NetworkConfig(**{"group": "O", **FLAT, **options})


def test_voxels_that_are_no_cubes_are_refused_for_a_group_that_mixes_axes():
    with pytest.raises(ModelError, match="O exchanges the axes z and y, along which the spacing in mm is 2.5 and 1"):
        TrainedModel("new", make_network("O"), InputSpec(spacing_mm=(2.5, 1, 1), side=8), Calibration())
    assert not TrainedModel("new", make_network("D4"), InputSpec((2.5, 1, 1), 8), Calibration()).limits


@pytest.mark.parametrize("group", ["O", "Oh"])
def test_weights_shared_alone_are_asked_for_and_said(group, tmp_path):
    made = network(group, **SHARED)
    assert torch.allclose(FoldedGCNN(made)(patches().float()), made(patches().float()), atol=1e-4)
    assert made.config.invariant_under == "trivial"
    path = tmp_path / "shared.safetensors"
    save_model(TrainedModel("shared", made, SPEC, Calibration()), path)
    loaded = load_model(str(path))
    assert loaded.limits.startswith(f"weight sharing alone, by configuration: {group} exchanges the axes z and y")
    errors = invariance_errors(loaded.network)
    assert sum(e.error is None for e in errors) == make_group(group).order - (8 if group == "O" else 16)
    result = CliRunner().invoke(app, ["verify", str(path)])
    assert result.exit_code == 6
    assert "turns to another shape" in result.stdout
    assert "weight sharing alone" in result.stderr
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["gcnn"])["network"]["weight_sharing"] is True


def test_a_flat_network_is_the_same_after_a_file(tmp_path):
    made = network("D4h", kernel=(1, 3, 3))
    save_model(TrainedModel("flat", made, SPEC, Calibration()), tmp_path / "flat.safetensors")
    loaded = load_model(str(tmp_path / "flat.safetensors"))
    assert (loaded.network.config, loaded.input) == (made.config, SPEC)
    assert torch.equal(loaded.network(patches().float()), made(patches().float()))
    result = CliRunner().invoke(app, ["verify", str(tmp_path / "flat.safetensors")])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, ["verify", str(tmp_path / "flat.safetensors"), "--group", "O"])
    assert result.exit_code == 6
    assert "turns its patches into another shape" in result.stderr


def test_files_of_cubic_networks_have_the_settings_that_older_versions_know(tmp_path):
    save_model(TrainedModel("old", make_network("O"), InputSpec(side=8), Calibration()), tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["gcnn"])
    assert set(header["network"]) == {
        "group", "fields", "pool_after", "side", "head_fields", "group_pool", "dropout"
    }  # fmt: skip
    assert header["input"] == {"spacing_mm": 1.0, "side": 8, "hu_low": -1000.0, "hu_high": 400.0}


def test_equal_sides_are_one_number():
    assert NetworkConfig(side=(32, 32, 32), pools=((2, 2, 2), 2, 2), kernel=[3, 3, 3]) == NetworkConfig()
    assert InputSpec((1.0, 1.0, 1.0), [32, 32, 32]) == InputSpec()


@pytest.mark.parametrize(
    "changes", [{"side": (4, 4)}, {"side": (2, 8, 8)}, {"spacing_mm": (1, 1, 9.0)}, {"side": (8, 8.0, 8)}, {"side": ()}]
)
def test_an_impossible_flat_contract_is_refused(changes):
    with pytest.raises(ModelError):
        InputSpec(**changes)


def test_scores_are_averaged_over_groups_of_the_patch_only():
    made = network("D4")
    with pytest.raises(ModelError, match="Oh exchanges the axes z and y, along which the patch is 5 and 8"):
        make_scorer(made, CPU, average_over="Oh")
    scorer = make_scorer(made, CPU, average_over="D4h", bfloat16=False)
    x = patches().float()
    turned = act_on_image(x, 5, make_group("D4h"))
    assert scorer.score([x]) == pytest.approx(scorer.score([turned]), rel=1e-5)
    plain = make_scorer(network("D4", head="flatten"), CPU, bfloat16=False)
    assert plain.group == "trivial"  # or test-time averaging would skip elements


# The article's numbers: convolution parameters, fully connected layer (of two logits)
ARTICLE = {
    "winkels2018-trivial": (214_704, 31_106),
    "winkels2018-d4": (217_242, 89_426),
    "winkels2018-d4h": (214_380, 124_418),
    "winkels2018-o": (219_753, 151_634),
    "winkels2018-oh": (213_894, 209_954),
}


@pytest.mark.parametrize("name", ARTICLE_NETWORKS)
def test_the_networks_of_the_article_have_its_numbers_of_parameters(name):
    config = article_network(name)
    state = GCNN(config).state_dict()
    convolutions = sum(
        v.numel() for k, v in state.items() if k.endswith("conv.weight") and not k.startswith("blocks.6")
    )
    assert convolutions == config.convolution_values
    if name in ARTICLE:
        dense = state["linear.weight"].numel() + state["linear.bias"].numel()
        assert (convolutions, 2 * dense) == ARTICLE[name]
    assert config.map_sides == (3, 9, 9)
    assert config.kernel_values == sum(v.numel() for k, v in state.items() if k.endswith("conv.weight")) + (
        state["linear.weight"].numel() if config.head == "flatten" else 0
    )
    assert config.invariant_under == (config.group if name.endswith("-span") else "trivial")


@pytest.mark.parametrize("name", [name for name in ARTICLE_NETWORKS if name.endswith("-span")])
def test_the_networks_of_the_article_with_our_head_are_invariant(name):
    config = replace(article_network(name), side=(4, 24, 24))  # smaller patches: the same layers, a smaller head
    made = GCNN(config)
    made.load_state_dict(randomized(made))
    made = made.double().eval()
    x = torch.randn(2, 1, *config.sides, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert equivariance_error(made, x, made.group, act_on_image, invariant) < 1e-10
    flattening = GCNN(replace(config, head="flatten")).double().eval()
    if config.group != "trivial":
        assert equivariance_error(flattening, x, made.group, act_on_image, invariant) > 1e-3
