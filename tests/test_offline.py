"""What a run must never do, watched by Python's own audit events: open a connection, or unpickle what could be code."""

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_network
from typer.testing import CliRunner

from gcnn_cli.cli import app
from gcnn_cli.network.contract import Calibration, InputSpec
from gcnn_cli.network.weights import TrainedModel, save_model
from gcnn_cli.phantom import write_phantom

PACKAGE = Path(__file__).resolve().parents[1] / "gcnn_cli"
WATCHED = """
import sys

def watch(event, arguments):
    if event.startswith(("socket.connect", "socket.bind", "socket.send", "socket.get", "urllib", "http", "ftplib")):
        sys.stderr.write(f"NETWORK {event} {arguments}\\n")
        raise OSError("the network is closed")
    if event == "pickle.find_class":
        sys.stderr.write(f"UNPICKLED {arguments}\\n")

sys.addaudithook(watch)
"""


def watched(script: str, folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", WATCHED + script], cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def labelled(phantom, tmp_path_factory):
    """A labelled phantom as MetaImage, the same as DICOM, and small weights."""
    folder = tmp_path_factory.mktemp("offline")
    write_phantom(phantom, folder / "data")
    write_phantom(phantom, folder / "both", dicom=True)
    model = TrainedModel("small", make_network("O"), InputSpec(spacing_mm=2.0, side=8), Calibration(threshold=0.4))
    save_model(model, folder / "small.safetensors")
    return folder


def test_detect_and_evaluate_open_no_connection_and_unpickle_nothing(labelled):
    commands = [
        ["detect", "both/thorax_dicom", "--model", "small.safetensors", "--format", "csv,json,html,png,sr"],
        ["evaluate", "--froc", "--data", "data", "--model", "small.safetensors", "--out", "froc", "--bootstraps", "10"],
    ]
    done = watched(
        "from gcnn_cli.cli import app\n"
        + "".join(f"app({command!r}, standalone_mode=False)\n" for command in commands),
        labelled,
    )
    assert done.returncode == 0, done.stderr
    assert (labelled / "thorax_dicom.nodules.html").is_file()
    assert (labelled / "froc" / "froc.json").is_file()
    assert "NETWORK" not in done.stderr
    assert "UNPICKLED" not in done.stderr


def test_the_watch_can_fail(tmp_path):
    for script in (
        "import socket; socket.create_connection(('127.0.0.1', 9), timeout=1)",
        "import urllib.request; urllib.request.urlopen('http://example.org', timeout=1)",
    ):
        done = watched(script, tmp_path)
        assert done.returncode
        assert "NETWORK" in done.stderr
    done = watched("import pickle, fractions; pickle.loads(pickle.dumps(fractions.Fraction(1)))", tmp_path)
    assert "UNPICKLED" in done.stderr


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["trap.safetensors", "trap.pt", "trap.pkl"])
def test_weights_that_are_a_pickle_are_refused_unopened(tmp_path, sample, name):
    content = pickle.dumps(Trap(tmp_path / "sprung"))
    (tmp_path / name).write_bytes(content)
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["detect", str(sample), "--model", str(tmp_path / name), "--out", str(out)])
    assert done.exit_code == 6
    (line,) = done.stderr.splitlines()
    assert "not a gcnn weights file, or damaged" in line
    assert not (tmp_path / "sprung").exists()
    pickle.loads(content)  # the trap works
    assert (tmp_path / "sprung").exists()


# Calls that read data and cannot run code; NumPy's as long as nobody allows it.
HARMLESS = {"np.load", "json.load", "json.loads", "tomllib.load", "tomllib.loads", "checkpoint.load"}
HARMLESS |= {"safetensors.torch.load"}


def test_nothing_in_the_package_unpickles():
    """Of the calls that could, only that of a training's checkpoint is there, as tensors and numbers alone."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        imported = {
            alias.asname or alias.name: f"{node.module}.{alias.name}"
            for node in nodes
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        for node in nodes:
            if isinstance(node, ast.Call):
                name, options = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
                name = imported.get(name, name)
                assert "allow_pickle" not in options, path
                if name.rpartition(".")[2] in ("load", "loads", "Unpickler", "read_pickle") and name not in HARMLESS:
                    found.append((path.relative_to(PACKAGE).as_posix(), name, options.get("weights_only")))
    assert found == [("training/checkpoint.py", "torch.load", "True")]
