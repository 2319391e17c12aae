"""Exported networks give the logits and probabilities of the network that was exported, for any size of a batch."""

import json
import warnings

import pytest
import torch
from conftest import make_network
from typer.testing import CliRunner

from gcnn_cli.cli import app
from gcnn_cli.network import export
from gcnn_cli.network.architecture import GCNN, NetworkConfig
from gcnn_cli.network.committee import Committee
from gcnn_cli.network.contract import Calibration, InputSpec
from gcnn_cli.network.inference import make_scorer
from gcnn_cli.network.weights import TrainedModel, load_model, save_model

CALIBRATION = Calibration(slope=1.7, offset=-0.4)


def save(folder, network, spec, calibration=CALIBRATION):
    path = folder / "small.safetensors"
    save_model(TrainedModel("small", network, spec, calibration), path)
    return path


def models():
    flat = NetworkConfig("D4", (2, 3), (1,), (4, 8, 8), 3, pools=((1, 2, 2),))
    torch.manual_seed(1)
    cubic = InputSpec(side=8)
    return {
        "one": (make_network("O"), cubic, CALIBRATION),
        "a committee, averaged": (
            Committee([make_network("O", seed=n) for n in range(2)]).eval(),
            cubic,
            Calibration(1.7, -0.4, average_over="Oh"),
        ),
        "flat": (GCNN(flat).eval(), InputSpec((2.0, 1.0, 1.0), (4, 8, 8)), CALIBRATION),
        "the article's head": (
            GCNN(NetworkConfig("Oh", (1, 1), (2,), (4, 8, 8), head="flatten", weight_sharing=True)).eval(),
            InputSpec((2.0, 1.0, 1.0), (4, 8, 8)),
            CALIBRATION,
        ),
    }


def expected_of(path, x):
    model = load_model(str(path))
    scorer = make_scorer(
        model.network, torch.device("cpu"), average_over=model.calibration.average_over, bfloat16=False
    )
    logits = scorer.score([x])
    return logits, [model.calibration.probability(float(logit)) for logit in logits]


@pytest.mark.parametrize("form", ["onnx", "torchscript"])
@pytest.mark.parametrize("which", models())
def test_an_exported_network_gives_the_same_scores(form, which, tmp_path):
    network, spec, calibration = models()[which]
    path, out = save(tmp_path, network, spec, calibration), tmp_path / "out"
    result = CliRunner().invoke(app, ["export", str(path), "--format", form, "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert (result.stdout, result.stderr) == (f"{out}\n", "")
    contract = json.loads(contract_in(out, form))
    assert contract["input"]["side"] == (list(spec.side) if isinstance(spec.side, tuple) else spec.side)
    assert contract["calibration"]["slope"] == 1.7
    assert contract["weights_sha256"] == load_model(str(path)).sha256
    for count in (1, 3):
        x = torch.randn(count, 1, *spec.sides, generator=torch.Generator().manual_seed(count))
        logits, probabilities = expected_of(path, x)
        made = run(out, form, x)
        assert made[0] == pytest.approx(logits, abs=1e-5)
        assert made[1] == pytest.approx(probabilities, abs=1e-5)


def contract_in(path, form):
    if form == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        return onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map["gcnn"]
    return script(path)[1]


def script(path):
    files = {"gcnn.json": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated
        return torch.jit.load(path, _extra_files=files), files["gcnn.json"]


def run(path, form, x):
    if form == "onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(path)
        assert [i.name for i in session.get_inputs()] == ["patches"]
        return session.run(["logit", "probability"], {"patches": x.numpy()})
    return [y.numpy() for y in script(path)[0](x)]


def test_an_exported_file_is_not_replaced_unasked(tmp_path):
    path, out = save(tmp_path, make_network("O"), InputSpec(side=8)), tmp_path / "out.pt"
    out.write_text("mine")
    arguments = ["export", str(path), "--format", "torchscript", "--out", str(out)]
    assert CliRunner().invoke(app, arguments).exit_code == 2
    assert out.read_text() == "mine"
    assert CliRunner().invoke(app, [*arguments, "--overwrite"]).exit_code == 0
    assert out.read_bytes() != b"mine"


def test_missing_libraries_are_named(tmp_path, monkeypatch):
    path = save(tmp_path, make_network("O"), InputSpec(side=8))
    monkeypatch.setattr(export, "_NEEDED", ("onnx", "no_such_library"))
    result = CliRunner().invoke(app, ["export", str(path), "--out", str(tmp_path / "out.onnx")])
    assert result.exit_code == 2
    assert "needs no_such_library: install gcnn with its extra 'export'" in result.stderr
    assert not (tmp_path / "out.onnx").exists()
