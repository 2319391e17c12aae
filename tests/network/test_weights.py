"""Weights files: the same network after a file, and no other one."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import make_network
from network.patches import patches
from safetensors import safe_open
from safetensors.torch import save_file

from gcnn_cli.errors import DeviceError, ModelError, UsageError
from gcnn_cli.network import weights
from gcnn_cli.network.contract import Calibration, InputSpec
from gcnn_cli.network.proposal_weights import ProposalModel, load_proposal_model, save_proposal_model
from gcnn_cli.network.proposals import ProposalNetwork, ProposalNetworkConfig
from gcnn_cli.network.shipped import list_models
from gcnn_cli.network.weights import TrainedModel, load_model, save_model


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
    assert [row["name"] for row in list_models()] == ["small"]
    manifest = tmp_path / weights.MANIFEST
    manifest.write_text(json.dumps({"small.safetensors": "0" * 64}))
    with pytest.raises(ModelError, match="not the manifest's"):
        load_model("small")
    manifest.unlink()
    with pytest.raises(ModelError, match="missing; reinstall"):
        load_model("small")


def test_what_was_hashed_is_what_is_loaded(model, tmp_path, monkeypatch):
    """The file is exchanged between reading and parsing."""
    path, other = tmp_path / "small.safetensors", tmp_path / "other.safetensors"
    sha256 = save_model(model, path)
    save_model(replace(model, name="other", network=make_network("C4")), other)
    read = Path.read_bytes

    def read_and_exchange(self):
        content = read(self)
        other.replace(self)
        return content

    monkeypatch.setattr(Path, "read_bytes", read_and_exchange)
    loaded = load_model(str(path))
    assert (loaded.name, loaded.group, loaded.sha256) == ("small", "O", sha256)


def test_saving_does_not_bless_altered_weights_beside_it(model, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "models_folder", lambda: tmp_path)
    save_model(model, tmp_path / "small.safetensors")
    save_model(replace(model, calibration=Calibration(2.0)), tmp_path / "elsewhere.safetensors")
    (tmp_path / "elsewhere.safetensors").replace(tmp_path / "small.safetensors")
    save_model(model, tmp_path / "new.safetensors")
    assert load_model("new").name == "small"
    with pytest.raises(ModelError, match="not the manifest's"):
        load_model("small")


@pytest.mark.parametrize("text", ["{", "[1]", "7"])
def test_a_damaged_manifest_is_refused_and_not_replaced(model, tmp_path, monkeypatch, text):
    monkeypatch.setattr(weights, "models_folder", lambda: tmp_path)
    save_model(model, tmp_path / "small.safetensors")
    manifest = tmp_path / weights.MANIFEST
    manifest.write_text(text)
    with pytest.raises(ModelError, match="unreadable or damaged"):
        load_model("small")
    with pytest.raises(ModelError, match="unreadable or damaged"):
        save_model(model, tmp_path / "new.safetensors")
    assert not (tmp_path / "new.safetensors").exists()
    assert manifest.read_text() == text


def test_shipped_weights_have_the_name_of_their_file():
    assert [load_model(name).name for name in ("octahedral", "plain")] == ["octahedral", "plain"]
    assert load_proposal_model("proposals").name == "proposals"


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
    """Change header entries of a weights file, and its tensors by the functions `tensors`; correct the checksum."""
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
    "a name that is not a string": ({"name": 7}, "do not match"),
    "a name with a line break": ({"name": "a\nb"}, "do not match"),
    "provenance": ({"provenance": [1]}, "do not match"),
    "a list for a group": ({"network": {"group": ["O"]}}, "do not match|unknown group"),
    "fields that are not numbers": ({"network": {"fields": ["2", "2", "3"]}}, "must be integers"),
    "a side that is a float": ({"network": {"side": 8.0}, "input": {"side": 8.0}}, "must be integers"),
    "sides that differ": ({"input": {"side": 16}}, "patches of side 16 for a network of side 8"),
    "more layers than tensors": ({"network": {"fields": [2] * 10**5}}, "100000 layers"),
    "a network too large for any memory": ({"network": {"fields": [2, 2, 2**40]}}, "differ in size"),
    "an infinite window": ({"input": {"hu_high": float("inf")}}, "invalid input contract"),
    "an offset of NaN": ({"calibration": {"offset": float("nan")}}, "invalid calibration"),
    "an infinite slope": ({"calibration": {"slope": float("inf")}}, "invalid calibration"),
    "operating points": ({"calibration": {"operating_points": [[1, 7.5]]}}, "invalid operating points"),
    "operating points of one number": ({"calibration": {"operating_points": [[1]]}}, "do not match"),
    "operating points of text": ({"calibration": {"operating_points": [["x", "y"]]}}, "do not match"),
}


@pytest.mark.parametrize(("changes", "message"), HEADERS.values(), ids=HEADERS)
def test_headers_that_no_training_writes_are_refused(model, tmp_path, changes, message):
    save_model(model, tmp_path / "small.safetensors")
    with pytest.raises(ModelError, match=message):
        load_model(resigned(tmp_path / "small.safetensors", **changes))


def test_headers_nested_too_deeply_or_of_another_type_are_refused(model, tmp_path):
    path = tmp_path / "small.safetensors"
    save_model(model, path)
    for text in ("[" * 100_000, "[]", "7"):
        save_file({"a": torch.zeros(1)}, path, {"gcnn": text})
        with pytest.raises(ModelError, match="not a gcnn weights file|of format None"):
            load_model(str(path))


def test_too_little_memory_for_the_network_is_not_a_damaged_file(model, tmp_path, monkeypatch):
    save_model(model, tmp_path / "small.safetensors")
    monkeypatch.setattr(weights, "build_network", lambda *_: torch.empty(1 << 60, dtype=torch.uint8))
    with pytest.raises(DeviceError, match="not enough memory to load these weights"):
        load_model(str(tmp_path / "small.safetensors"))


def test_weights_of_a_failed_training_are_refused(model, tmp_path):
    save_model(model, tmp_path / "small.safetensors")
    with pytest.raises(ModelError, match="NaN or infinite weights: its training failed"):
        load_model(resigned(tmp_path / "small.safetensors", tensors=[lambda s: s["linear.weight"].fill_(torch.nan)]))


def test_proposal_weights_are_listed_beside_those_that_score(model, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "models_folder", lambda: tmp_path)
    save_model(model, tmp_path / "small.safetensors")
    network = ProposalNetwork(ProposalNetworkConfig("C4", (1, 1, 1, 1), 1)).eval()
    save_proposal_model(ProposalModel("where", network, InputSpec(side=48)), tmp_path / "where.safetensors")
    rows = {row["name"]: row for row in list_models()}
    assert sorted(rows) == ["small", "where"]
    assert (rows["where"]["group"], rows["where"]["threshold"], rows["where"]["side"]) == ("C4", None, 48)
    assert rows["where"]["parameters"] == sum(p.numel() for p in network.parameters())
