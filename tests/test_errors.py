"""Errors are one line, whatever they quote, and carry the path that they concern as data."""

import pickle
from pathlib import Path

import pytest
import torch

from gcnn_cli.errors import GcnnError, InputError, is_out_of_memory
from gcnn_cli.evaluation.inputs import _sha256
from gcnn_cli.experiment.arms import Arm
from gcnn_cli.experiment.runs import Experiment, Run, is_done
from gcnn_cli.experiment.splits import Split, write_test
from gcnn_cli.training.metrics import Metrics
from gcnn_cli.training.recipe import Recipe


@pytest.mark.parametrize("spoiled", ["a\nb", "a\rb", "\x1b[2Jgone", "a\x00", "\u2028", "\u202eb.mha", "\udcff"])
def test_what_would_break_the_line_or_command_the_terminal_is_shown(spoiled: str) -> None:
    for error in (InputError(f"{spoiled}: cannot be read"), InputError("cannot be read", path=spoiled)):
        text = str(error)
        assert text.isprintable()
        assert text.encode("utf-8")
        assert "\\" in text


def test_other_text_is_left_as_it_is() -> None:
    text = "/data/Lunge rechts/ä 肺  CT.mha: 1 × 2\u00a0mm … don't"
    assert str(GcnnError(text)) == text


def test_the_path_comes_first() -> None:
    error = InputError("truncated", path=Path("in/a.mha"))
    assert (str(error), error.reason, error.path) == ("in/a.mha: truncated", "truncated", Path("in/a.mha"))
    again = pickle.loads(pickle.dumps(error))  # as Dask sends it
    assert (type(again), str(again), again.path) == (InputError, str(error), error.path)


def test_an_error_moves_with_its_path_and_not_by_its_text() -> None:
    old, new = Path("/tmp/x"), Path("scan.zip")
    assert str(InputError("no slices", path="/tmp/x").moved(old, new)) == "scan.zip: no slices"
    assert str(InputError("damaged", path="/tmp/x/a/1.dcm").moved(old, new)) == "scan.zip/a/1.dcm: damaged"
    assert str(InputError("damaged", path="/tmp/x/a/1.dcm").moved(old, Path())) == "a/1.dcm: damaged"
    for other in (InputError("like /tmp/x/a", path="/tmp/xy/b"), InputError("/tmp/x/a: not data")):
        assert other.moved(old, new) is other


def test_an_error_names_its_scan_once() -> None:
    scan = Path("in/scan")
    assert str(InputError("no lung found").located(scan)) == "in/scan: no lung found"
    assert str(InputError("damaged", path="in/scan/1.dcm").located(scan)) == "in/scan/1.dcm: damaged"
    assert str(InputError("empty", path="mask.mha").located(scan)) == "in/scan: mask.mha: empty"
    assert str(InputError("cut", path="in/scan.zraw").located(scan)) == "in/scan: in/scan.zraw: cut"


def test_a_file_that_cannot_be_read_is_not_called_unwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What earlier runs left, and the tables that are evaluated. Here a folder lies where the file should."""
    run = Run(Arm("O", "O", (2, 2)), 4, 0)
    for path in (tmp_path / "runs" / f"{run.name}.json", tmp_path / "metrics.jsonl", tmp_path / "test.json"):
        path.mkdir(parents=True)
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    split = Split([], [], [], "mark")
    experiment = Experiment(Recipe(), tmp_path, lambda _: split)
    for read in (
        lambda: _sha256(tmp_path / "test.json"),
        lambda: is_done(run, split, experiment),
        lambda: write_test(split, tmp_path),
        lambda: Metrics(tmp_path, tensorboard=False, resume=True),
    ):
        with pytest.raises(InputError, match="cannot be read: |damaged"):
            read()


def test_what_runs_out_of_memory_is_known_as_that() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)  # the CPU's allocator raises no MemoryError
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))
