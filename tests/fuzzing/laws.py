"""What must hold of any input: it is read and what was read is sane, or it is refused in one line.

Refused means a GcnnError with an exit code of its kind. Nothing else may be raised, warned of or
printed; how long and how much memory it took is measured by who calls.
"""

import contextlib
import math
import os
import re
import sys
import tempfile
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import numpy as np
import torch
from fuzzing.inputs import sound_input
from fuzzing.mutators import spoil
from typer.testing import CliRunner

from gcnn_cli.cli.app import app
from gcnn_cli.errors import GcnnError
from gcnn_cli.evaluation.reports import read_any_predictions
from gcnn_cli.labels.label_sets import read_label_sets
from gcnn_cli.labels.marks import UNMEASURED_MM, Marks, make_marks
from gcnn_cli.labels.tables import read_excluded, read_nodules, read_series
from gcnn_cli.network.inference import make_scorer
from gcnn_cli.network.weights import load_model
from gcnn_cli.output.formats import write_report
from gcnn_cli.output.json_reading import read_report
from gcnn_cli.scan.folders import visible_files
from gcnn_cli.scan.images.image_file import read_lattice, read_mask, suffix_of
from gcnn_cli.scan.info import describe_scan
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.volume import Volume
from gcnn_cli.training.recipe import read_recipe, recipe_text

LIMIT_S = 10.0  # of computing: a busy machine proves nothing
_OWN_MATTERS = re.compile(r"\ballocate\b|bad_alloc|memory|Traceback|0x[0-9a-f]{9}", re.IGNORECASE)
# For inputs of at most 100 kB. Deflate packs 1032 to 1 at best, and a copy or two is made of what was unpacked.
LARGEST_BYTES = 256 * 2**20


class LawBroken(AssertionError):  # noqa: N818 - a finding, not an error
    """An input that was neither read soundly nor refused in one line."""


def try_input(kind: str, seed: Random) -> str:
    """Spoil an input of a kind and read it: 'read' or 'refused'. Raises LawBroken."""
    name, files = sound_input(kind)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        folder = Path(temporary)
        for file, content in spoil(files, seed).items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content)
        return judge(kind, folder / name if name else folder, command=seed.random() < 0.15)


def judge(kind: str, path: Path, *, command: bool = False) -> str:
    """'read' or 'refused'. command: through the command line instead, as a user meets it."""
    printed = ""
    try:
        with silence() as output, warnings.catch_warnings():
            warnings.simplefilter("error")
            refusal = _by_command(kind, path) if command else _by_reader(kind, path)
            printed = output()
    except LawBroken:
        raise
    except Exception as error:
        raise LawBroken(f"{type(error).__name__}: {str(error)[:300]!r}") from error
    if printed:
        raise LawBroken(f"printed {printed[:300]!r}")
    if refusal is None:
        return "read"
    code, text = refusal
    if code not in _CODES[_family(kind)]:
        raise LawBroken(f"exit code {code} for {text!r}")
    if not one_line(text):
        raise LawBroken(f"not one line: {text!r}")
    if _OWN_MATTERS.search(text):
        raise LawBroken(f"tells of itself, not of the input: {text!r}")
    return "refused"


def one_line(text: str) -> bool:
    """Neither empty nor with line breaks or control characters, which a terminal would obey."""
    return bool(text.strip()) and not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)


def _by_reader(kind: str, path: Path) -> tuple[int, str] | None:
    """Exit code and text of the refusal; None where everything was read."""
    try:
        _READERS[_family(kind)](path)
    except GcnnError as error:
        return error.exit_code, str(error)
    return None


def _family(kind: str) -> str:
    return kind if kind in _READERS else "scan"


def _expect(holds: object, what: str) -> None:
    if not holds:
        raise LawBroken(f"read, but {what}")


def _read_scan(path: Path) -> None:
    """Everything that reads scans: the summary and the header may refuse less, never differently."""
    with contextlib.suppress(GcnnError):
        describe_scan(path)
    grid = None
    if suffix_of(path) and path.is_file():
        with contextlib.suppress(GcnnError):
            _check_geometry(read_mask(path))
        with contextlib.suppress(GcnnError):
            grid = read_lattice(path)
    volume = read_volume(path)
    _check_geometry(volume)
    _expect(-1024 <= volume.hu.min() < volume.hu.max() <= 32767, "HU out of range")
    if suffix_of(path):
        _expect(grid is not None, "its grid was refused")
        _expect(grid.shape == volume.shape and np.allclose(grid.to_world, volume.to_world), "its grid differs")
    _expect(all(map(one_line, volume.source.warnings)), f"warnings {volume.source.warnings}")


def _check_geometry(volume: Volume) -> None:
    _expect(min(volume.shape) >= 2 and volume.hu.size < 2**26, f"shape {volume.shape}")
    _expect(
        np.isfinite(volume.to_world).all() and np.isfinite(volume.lattice.to_index).all(),
        "an affine that is not finite",
    )
    _expect(volume.spacing_zyx.min() > 1e-3 and volume.spacing_zyx.max() < 10, f"spacing {volume.spacing_zyx}")
    _expect(np.abs(volume.to_world[:3, 3]).max() < 1e6, f"origin {volume.to_world[:3, 3]}")


def _read_weights(path: Path) -> None:
    model = load_model(str(path))
    patches = torch.zeros(2, 1, *model.network.config.sides)
    logits = make_scorer(model.network, torch.device("cpu"), bfloat16=False).score([patches])
    _expect(np.isfinite(logits).all(), f"logits {logits}")
    probability = model.calibration.probability(float(logits[0]))
    _expect(0 <= probability <= 1, f"probability {probability}")
    _expect(all(0 <= cut <= 1 and rate > 0 for rate, cut in model.calibration.operating_points), "operating points")
    _expect(isinstance(model.name, str) and one_line(model.name), f"name {model.name!r}")


def _read_report(path: Path) -> None:
    report = read_report(path)
    _expect(all(math.isfinite(v) for n in report.nodules for v in (*n.position_mm, n.probability)), "no numbers")
    with tempfile.TemporaryDirectory() as out:
        formats = ("csv", "json", "luna16", "slicer", "grand-challenge")
        write_report(report, {name: Path(out) / name for name in formats}, scan=None, overwrite=False)
        _expect(read_report(Path(out) / "json") == report, "another report when written and read again")


def _read_reports(path: Path) -> None:
    predictions = read_any_predictions(path)
    _expect(np.isfinite(predictions.marks.position_mm).all(), "positions that are not finite")
    _expect(all(0 <= v <= 1 for v in predictions.marks.value), "probabilities out of range")


def _read_annotations(path: Path) -> None:
    with contextlib.suppress(GcnnError):
        read_series(path)
    for rows in (read_nodules(path)[0], read_excluded(path)):
        _expect(all(row[4] > 0 or row[4] == UNMEASURED_MM for row in rows), "a diameter of nothing")
        _check_marks(make_marks(rows))


def _read_predictions(path: Path) -> None:
    with contextlib.suppress(GcnnError):
        read_series(path)
    _check_marks(read_any_predictions(path).marks)


def _check_marks(marks: Marks) -> None:
    _expect(bool(np.isfinite(marks.position_mm).all() and np.isfinite(marks.value).all()), "no numbers")
    _expect(all(marks.series), "an empty seriesuid")


def _read_labels(path: Path) -> None:
    for labels in read_label_sets(visible_files(path)):
        marks = [mark for group in (labels.nodules, labels.excluded) for found in group.values() for mark in found]
        _expect(all(math.isfinite(v) for mark in marks for v in mark), "marks that are not finite")
        _expect(all(mark[3] > 0 or mark[3] == UNMEASURED_MM for mark in marks), "a diameter of nothing")
        _expect(all(np.isfinite(found).all() for found in labels.candidates.values()), "candidates that are not finite")


def _read_recipe(path: Path) -> None:
    recipe = read_recipe(path)
    again = path.with_name("again.toml")
    again.write_text(recipe_text(recipe), "utf-8")
    _expect(read_recipe(again) == recipe, "another recipe when written and read again")


_READERS: dict[str, Callable[[Path], None]] = {
    "scan": _read_scan,
    "weights": _read_weights,
    "report": _read_report,
    "reports": _read_reports,
    "annotations": _read_annotations,
    "predictions": _read_predictions,
    "labels": _read_labels,
    "recipe": _read_recipe,
}
_CODES = {
    "scan": {3, 4, 5},
    "weights": {6},
    "report": {3},
    "reports": {3},
    "annotations": {3},
    "predictions": {3},
    "labels": {3},
    "recipe": {2, 3, 6},
}


def _by_command(kind: str, path: Path) -> tuple[int, str] | None:
    with tempfile.TemporaryDirectory() as out:
        done = CliRunner().invoke(app, [str(a) for a in _arguments(kind, path, Path(out))])
    if done.exit_code == 0:
        return None
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    if len(errors) != 1 or lines[-1] != errors[0]:
        raise LawBroken(f"exit code {done.exit_code} with {done.stderr[-300:]!r}")
    return done.exit_code, errors[0]


def _arguments(kind: str, path: Path, out: Path) -> list[object]:
    family = _family(kind)
    annotations, predictions = out / "a.csv", out / "p.csv"
    annotations.write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\nscan0,1,2,3,5\n")
    predictions.write_text("seriesuid,coordX,coordY,coordZ,probability\nscan0,1,2,3,0.5\n")
    evaluate = ["evaluate", "--froc", "--quiet", "--bootstraps", "0", "--allow-unknown"]
    return {
        "scan": ["info", path],
        "weights": [*evaluate, "--predictions", predictions, "--annotations", annotations, "--model", path],
        "report": ["convert", path, "--format", "csv,luna16", "--out", out],
        "reports": [*evaluate, "--predictions", path, "--annotations", annotations],
        "predictions": [*evaluate, "--predictions", path, "--annotations", annotations],
        "annotations": [*evaluate, "--predictions", predictions, "--annotations", path],
        "labels": ["train", "--data", path, "--out", out / "w.safetensors"],
        "recipe": ["train", "--data", out, "--out", out / "w.safetensors", "--config", path],
    }[family]


@contextlib.contextmanager
def silence() -> Iterator[Callable[[], str]]:
    """Catch what C and C++ libraries write to both outputs; gives a function that returns it."""
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        kept = [os.dup(1), os.dup(2)]
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)

            def output() -> str:
                file.seek(0)
                return file.read().decode("utf-8", "replace")

            yield output
        finally:
            for number, copy in enumerate(kept, start=1):
                os.dup2(copy, number)
                os.close(copy)
