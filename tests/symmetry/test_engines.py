"""Layers under what PyTorch offers: compilation, autocast, copies, export, ONNX, several processes."""

import copy
import io
import shutil
import warnings

import pytest
import torch
from symmetry.test_layers import image
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from gcnn_cli.symmetry import (
    BlurPool,
    FieldDropout,
    FieldNorm,
    GroupConv,
    GroupPool,
    LiftingConv,
    MaxPool,
    RestrictGroup,
    SeparableGroupConv,
    TransposedGroupConv,
    Upsample,
    make_group,
)

BOTH = {"O": "D4", "p4m": "p4"}


def every_layer(name):
    """A network with one of every layer: images [B, 2, *grid] -> [B, 3]."""
    torch.manual_seed(0)
    group, subgroup = make_group(name), make_group(BOTH[name])
    return nn.Sequential(
        LiftingConv(group, 2, 2, padding_mode="replicate"),
        FieldNorm(group, 2),
        nn.ReLU(),
        GroupConv(group, 2, 2, 2, pad=False, stride=2),
        TransposedGroupConv(group, 2, 1),
        BlurPool(group),
        Upsample(group, mode="linear"),
        FieldDropout(group, 0.1),
        RestrictGroup(group, subgroup),
        SeparableGroupConv(subgroup, group.order // subgroup.order, 2, dilation=2, bias=False),
        FieldNorm(subgroup, 2),
        MaxPool(subgroup),
        GroupConv(subgroup, 2, 3),
        GroupPool(subgroup),
        nn.Flatten(2),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
    ).eval()


def small(name, count=2):
    return image(make_group(name), side=4).float().repeat(count, *(1,) * (1 + make_group(name).dimension))


@pytest.mark.parametrize("name", BOTH)
def test_copies_and_state_dicts_compute_the_same(name):
    network, x = every_layer(name), small(name)
    expected = network(x)
    assert torch.equal(copy.deepcopy(network)(x), expected)
    other = every_layer(name)
    for value in other.state_dict().values():
        value.zero_()
    assert not torch.allclose(other(x), expected)
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(x), expected)
    assert not any("expansion" in key or "places" in key for key in network.state_dict())


@pytest.mark.parametrize("name", BOTH)
def test_autocast_computes_in_bfloat16(name):
    network, x = every_layer(name), small(name)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        lifted = network[0](x)
        assert lifted.dtype == torch.bfloat16
        y = network(x)
    assert (y.float() - network(x)).abs().max() < 0.05 * network(x).abs().max()
    network.train()
    with torch.autocast("cpu", torch.bfloat16):
        network(x).float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # the compiler's own doing
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", BOTH)
def test_compiled_layers_compute_the_same(name, training):
    network, x = every_layer(name).train(training), small(name)
    network[7].probability = 0.0  # compiled code draws other random numbers
    expected = copy.deepcopy(network)
    compiled = torch.compile(network, backend="aot_eager")
    y, z = compiled(x), expected(x)
    assert torch.allclose(y, z, atol=1e-5)
    (y.square().sum()).backward()
    (z.square().sum()).backward()
    for ours, theirs in zip(network.parameters(), expected.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-4)
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(1.5)
        expected.load_state_dict(network.state_dict())
        assert torch.allclose(compiled(x), expected(x), atol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the default backend needs a C++ compiler")
def test_the_default_backend_of_compilation_computes_the_same():
    network, x = every_layer("p4m"), small("p4m")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of inductor about this machine
        assert torch.allclose(torch.compile(network)(x), network(x), atol=1e-5)


@pytest.mark.parametrize("name", BOTH)
def test_exported_programs_compute_the_same(name):
    network, x = every_layer(name), small(name)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(network, (x,), dynamic_shapes=({0: batch},))
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()
    for count in (1, 3):
        x = small(name, count)
        assert torch.allclose(loaded(x), network(x), atol=1e-5)


@pytest.mark.parametrize("name", BOTH)
def test_onnx_computes_the_same(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network, x = every_layer(name), small(name)
    path = tmp_path / "network.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(network, (x,), dynamo=True, verbose=False, opset_version=18)
    program.save(path)
    session = onnxruntime.InferenceSession(path)
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert torch.allclose(torch.from_numpy(y), network(x), atol=1e-5)


def test_gradients_of_several_processes_are_those_of_one(tmp_path):
    """One process stands for several: its gradients must pass through DistributedDataParallel unchanged."""
    network, x = every_layer("p4m").train(), small("p4m")
    network[7].probability = 0.0
    alone = copy.deepcopy(network)
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(network)
        wrapped(x).square().sum().backward()
    finally:
        distributed.destroy_process_group()
    alone(x).square().sum().backward()
    for ours, theirs in zip(network.parameters(), alone.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-5)


def test_functions_of_the_weights_see_stand_ins():
    """torch.func calls a layer with other weights: what is kept for the layer's own must not answer."""
    layer = GroupConv(make_group("p4m"), 1, 1).eval()
    x = torch.randn(1, 1, 8, 4, 4)
    other = {name: 2 * value for name, value in layer.state_dict().items()}
    with torch.no_grad():
        own = layer(x)
        assert torch.allclose(torch.func.functional_call(layer, other, (x,)), 2 * own)
        assert torch.equal(layer(x), own)
