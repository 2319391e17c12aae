"""Whole networks: invariant for every element, the same when folded, the same after a file."""

import itertools
import json

import numpy as np
import pytest
import torch
from conftest import make_network
from safetensors import safe_open
from safetensors.torch import save_file

from gcnn_cli.errors import DeviceError, ModelError, UsageError
from gcnn_cli.network import weights
from gcnn_cli.network.architecture import GCNN, NetworkConfig
from gcnn_cli.network.contract import Calibration, InputSpec
from gcnn_cli.network.devices import choose_device, has_fast_bfloat16
from gcnn_cli.network.inference import FoldedGCNN, Scorer, make_scorer
from gcnn_cli.network.verify import TOLERANCE, invariance_errors
from gcnn_cli.network.weights import TrainedModel, load_model, save_model
from gcnn_cli.symmetry.actions import act_on_image
from gcnn_cli.symmetry.groups import GENERATORS, make_group
from gcnn_cli.symmetry.laws import equivariance_error, invariant

CPU = torch.device("cpu")


def patches(group, dtype=torch.float64, count=2):
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, 1, *(8,) * make_group(group).dimension, dtype=dtype, generator=generator)


@pytest.mark.parametrize("name", GENERATORS)
def test_the_score_ignores_orientation(name):
    network = make_network(name).double()
    error = equivariance_error(network, patches(name), network.group, act_on_image, invariant)
    assert error < 1e-10


@pytest.mark.parametrize("name", GENERATORS)
def test_a_training_step_keeps_the_law(name):
    """The defect of the first published code: what is untied drifts apart in training."""
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


@pytest.mark.parametrize("name", GENERATORS)
def test_folding_changes_nothing(name):
    network = make_network(name).double()
    x = patches(name)
    assert torch.allclose(FoldedGCNN(network)(x), network(x), atol=1e-10)


def test_folding_needs_fixed_norms():
    with pytest.raises(ModelError, match="eval"):
        FoldedGCNN(make_network("O").train())


def test_bfloat16_stays_near_float32(network):
    x = patches("O", torch.float32, count=64)
    exact = make_scorer(network, CPU, bfloat16=False).score([x])
    fast = make_scorer(network, CPU, bfloat16=True).score([x])
    assert np.abs(fast - exact).max() < 0.02 * np.abs(exact).max()
    assert isinstance(has_fast_bfloat16(CPU), bool)


def test_batches_do_not_matter(network):
    scorer = make_scorer(network, CPU, bfloat16=False)
    x = patches("O", torch.float32, count=10)
    assert np.allclose(scorer.score([x]), scorer.score(x.split(3)), atol=1e-6)
    assert scorer.score([]).shape == (0,)


def test_test_time_pooling_makes_the_plain_network_invariant():
    network, x = make_network("trivial"), patches("trivial", torch.float32)
    scorer = make_scorer(network, CPU, average_over="O", bfloat16=False)
    group = make_group("O")
    scores = np.stack([scorer.score([act_on_image(x, g, group)]) for g in range(group.order)])
    assert np.ptp(scores, axis=0).max() < 1e-5
    copies = [network(act_on_image(x, g, group)) for g in range(group.order)]
    assert np.allclose(scores[0], torch.stack(copies).mean(0).detach().numpy(), atol=1e-5)


def test_verify_finds_what_is_and_what_is_not_invariant():
    assert max(e.error for e in invariance_errors(make_network("O"))) <= TOLERANCE
    assert max(e.error for e in invariance_errors(make_network("trivial"), group="O")) > TOLERANCE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"side": 30}, "not divisible by 8"),
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


def test_a_patch_of_another_size_is_refused(network):
    with pytest.raises(ModelError, match="patches of shape"):
        network(torch.zeros(1, 1, 9, 9, 9))


def test_the_pooling_over_the_group_can_be_a_mean():
    config = NetworkConfig(group="O", fields=(2, 2), pool_after=(1,), side=8, head_fields=3, group_pool="mean")
    network = GCNN(config).double().eval()
    assert equivariance_error(network, patches("O"), network.group, act_on_image, invariant) < 1e-10
    assert torch.allclose(FoldedGCNN(network)(patches("O")), network(patches("O")), atol=1e-10)


@pytest.mark.parametrize("name", ["tpu", "cuda:99", "cuda:x", "meta"])
def test_a_device_that_is_not_here_is_an_error(name):
    with pytest.raises(DeviceError):
        choose_device(name)


def test_auto_and_cpu_are_always_here():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.gpu
def test_the_gpu_agrees_with_the_cpu(network):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    x = patches("O", torch.float32, count=16)
    on_gpu = make_scorer(network, choose_device("cuda"), bfloat16=False).score([x])
    assert np.allclose(on_gpu, make_scorer(network, CPU, bfloat16=False).score([x]), atol=1e-3)


class Small(torch.nn.Module):
    """A network on a device that holds so many patches at once."""

    def __init__(self, network, most):
        super().__init__()
        self.network, self.most, self.sizes = network, most, []

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.network(x)


@pytest.mark.parametrize("average_over", ["trivial", "C4"])
@pytest.mark.parametrize("most", [1, 3, 5, 64])
def test_out_of_memory_halves_the_batch_and_says_so(network, caplog, most, average_over):
    x = patches("O", torch.float32, count=23)
    batches = x.split(10)
    small = Small(FoldedGCNN(network).eval(), most)
    scorer = Scorer(small, CPU, bfloat16=False, average_over=average_over)
    with caplog.at_level("WARNING", logger="gcnn"):
        scores = scorer.score(batches)
    whole = make_scorer(network, CPU, average_over=average_over, bfloat16=False).score([x])
    assert np.allclose(scores, whole, atol=1e-5)
    sizes = [10, 5, 2, 1]
    tried = sizes[: next((n for n, size in enumerate(sizes) if size <= most)) + 1]
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"cpu ran out of memory with {a} patches at once: going on with {b}" for a, b in itertools.pairwise(tried)
    ]
    assert sum(size > most for size in small.sizes) == len(said)  # what failed once is not tried again


def test_memory_for_not_a_single_patch_is_an_error(network):
    scorer = Scorer(Small(FoldedGCNN(network).eval(), 0), CPU, bfloat16=False)
    with pytest.raises(DeviceError, match="with a single patch; use --device cpu"):
        scorer.score([patches("O", torch.float32, count=4)])


# Weights files


@pytest.fixture
def model(network):
    calibration = Calibration(1.5, -0.25, 0.3, ((1.0, 0.4), (4.0, 0.2)))
    return TrainedModel("small", network, InputSpec(side=8), calibration, {"seed": 0})


def test_a_weights_file_gives_the_same_network_back(model, tmp_path):
    path = tmp_path / "small.safetensors"
    sha256 = save_model(model, path)
    loaded = load_model(str(path))
    x = patches("O", torch.float32)
    assert torch.equal(loaded.network(x), model.network(x))
    assert (loaded.input, loaded.calibration, loaded.group) == (model.input, model.calibration, "O")
    assert loaded.sha256 == sha256
    assert loaded.provenance == {"seed": 0}


def test_a_weights_file_is_not_overwritten_unasked(model, tmp_path):
    path = tmp_path / "small.safetensors"
    save_model(model, path)
    with pytest.raises(UsageError, match="exists already"):
        save_model(model, path)
    save_model(model, path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["small.safetensors"]


def _flip_last_byte(content):
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flip_last_byte, "altered"),
        (lambda content: content[:-100], "damaged"),
        (lambda content: b"", "damaged"),
        (lambda content: b"\x80\x04\x95 a pickle", "not a gcnn weights file"),
        (lambda content: content.replace(b'\\"format\\": 1', b'\\"format\\": 9'), "format 9"),
    ],
)
def test_damaged_weights_are_refused(model, tmp_path, damage, message):
    path = tmp_path / "small.safetensors"
    save_model(model, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelError, match=message):
        load_model(str(path))


def test_foreign_safetensors_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match="not a gcnn weights file"):
        load_model(str(path))


def test_missing_weights_name_what_ships():
    with pytest.raises(ModelError, match=r"no weights named 'nothing'.*shipped"):
        load_model("nothing")


def test_shipped_weights_answer_to_the_manifest(model, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "models_folder", lambda: tmp_path)
    save_model(model, tmp_path / "small.safetensors")  # writes the manifest too
    assert load_model("small").name == "small"
    assert [row["name"] for row in weights.list_models()] == ["small"]
    manifest = tmp_path / weights.MANIFEST
    manifest.write_text(json.dumps({"small.safetensors": "0" * 64}))
    with pytest.raises(ModelError, match="not the manifest's"):
        load_model("small")
    manifest.unlink()
    with pytest.raises(ModelError, match="missing or damaged"):
        load_model("small")


def test_shipped_weights_bear_the_name_they_are_asked_for_by():
    for name in ("octahedral", "plain", "candidates"):
        assert load_model(name).name == name


def test_calibration_is_a_probability():
    calibration = Calibration(2.0, -1.0)
    assert calibration.probability(0.5) == pytest.approx(0.5)
    assert calibration.probability(1000) == pytest.approx(1)
    assert calibration.probability(-1000) == pytest.approx(0)
    with pytest.raises(ModelError):
        Calibration(slope=-1)


def test_operating_points_are_looked_up_not_invented():
    calibration = Calibration(operating_points=((1.0, 0.4), (4.0, 0.2)))
    assert calibration.threshold_at(4) == 0.2
    with pytest.raises(UsageError, match="stored: 1, 4"):
        calibration.threshold_at(2)


def resigned(path, **changes):
    """A weights file with other header entries, or with `tensors` changed, and the checksum made right again."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["gcnn"])
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for change in changes.pop("tensors", ()):
        change(state)
    for key, value in changes.items():
        header[key] = {**header[key], **value} if isinstance(value, dict) else value
    header["tensors_sha256"] = weights.tensors_sha256(state)
    save_file(state, path, {"gcnn": json.dumps(header)})
    return str(path)


HEADERS = {
    "a name that is no text": ({"name": 7}, "do not fit"),
    "a name with a line break": ({"name": "a\nb"}, "do not fit"),
    "provenance": ({"provenance": [1]}, "do not fit"),
    "a group of no name": ({"network": {"group": ["O"]}}, "do not fit|unknown group"),
    "fields that are no numbers": ({"network": {"fields": ["2", "2", "3"]}}, "whole numbers"),
    "a side that is no whole number": ({"network": {"side": 8.0}, "input": {"side": 8.0}}, "whole number"),
    "sides that differ": ({"input": {"side": 16}}, "patches of side 16 for a network of side 8"),
    "more layers than tensors": ({"network": {"fields": [2] * 10**5}}, "100000 layers"),
    "a network that no memory holds": ({"network": {"fields": [2, 2, 2**40]}}, "another size"),
    "a window without an end": ({"input": {"hu_high": float("inf")}}, "unusable input contract"),
    "an offset that is no number": ({"calibration": {"offset": float("nan")}}, "unusable calibration"),
    "a slope without an end": ({"calibration": {"slope": float("inf")}}, "unusable calibration"),
    "operating points": ({"calibration": {"operating_points": [[1, 7.5]]}}, "unusable operating points"),
    "operating points of one": ({"calibration": {"operating_points": [[1]]}}, "do not fit"),
    "no operating points": ({"calibration": {"operating_points": [["x", "y"]]}}, "do not fit"),
}


@pytest.mark.parametrize("group", ["trivial", "O", "D4h"])
def test_the_size_of_a_network_is_known_before_it_is_made(group):
    config = NetworkConfig(group=group, fields=(2, 3, 1), pool_after=(2,), side=8, head_fields=5)
    kernels = [value for name, value in GCNN(config).state_dict().items() if name.endswith("conv.weight")]
    assert config.kernel_values == sum(value.numel() for value in kernels)


@pytest.mark.parametrize(("changes", "message"), HEADERS.values(), ids=HEADERS)
def test_headers_that_no_training_writes_are_refused(model, tmp_path, changes, message):
    save_model(model, tmp_path / "small.safetensors")
    with pytest.raises(ModelError, match=message):
        load_model(resigned(tmp_path / "small.safetensors", **changes))


def test_endless_headers_are_refused(model, tmp_path):
    path = tmp_path / "small.safetensors"
    save_model(model, path)
    for text in ("[" * 100_000, "[]", "7"):
        save_file({"a": torch.zeros(1)}, path, {"gcnn": text})
        with pytest.raises(ModelError, match="not a gcnn weights file|of format None"):
            load_model(str(path))


def test_weights_of_a_failed_training_are_refused(model, tmp_path):
    save_model(model, tmp_path / "small.safetensors")
    with pytest.raises(ModelError, match="NaN or infinite weights"):
        load_model(resigned(tmp_path / "small.safetensors", tensors=[lambda s: s["linear.weight"].fill_(torch.nan)]))


def test_scores_that_are_no_numbers_are_an_error(network):
    with torch.no_grad():
        network.linear.weight.fill_(3e38)
    with pytest.raises(ModelError, match="not finite"):
        make_scorer(network, CPU, bfloat16=False).score([1e4 * patches("O", torch.float32)])
