"""The metrics of a run: metrics.jsonl, a plot of it, and TensorBoard on request."""

import importlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.files import write_bytes
from gcnn_cli.training.loop import Progress


class MetricLines:
    """The file `metrics.jsonl` of a run: one line for each step that was written, in order.

    A step is written once. Its line replaces the lines from that step on, which a run that was killed after its last
    checkpoint has left. Raises InputError for a damaged file of an earlier run.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self._path = path
        self.lines: list[dict[str, Any]] = _read_lines(path) if resume and path.is_file() else []
        self._store()

    def write(self, line: Mapping[str, Any]) -> None:
        """Add the line of step `line["step"]`."""
        self.lines = [earlier for earlier in self.lines if earlier["step"] < line["step"]]
        self.lines.append(dict(line))
        self._store()

    def _store(self) -> None:
        write_bytes(self._path, "".join(json.dumps(line) + "\n" for line in self.lines).encode(), overwrite=True)


class Metrics:
    """Writes one line per validation and, on exit, loss.png. The lines of a resumed run follow the earlier ones."""

    def __init__(self, folder: Path, *, tensorboard: bool, resume: bool) -> None:
        self._folder = folder
        self._board = _board(folder / "tensorboard") if tensorboard else None
        self._file = MetricLines(folder / "metrics.jsonl", resume=resume)

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()
        if self._file.lines:
            _draw(self._file.lines).savefig(self._folder / "loss.png", metadata={"Software": "gcnn"})

    def write(self, line: Progress) -> None:
        """Add one line."""
        self._file.write(asdict(line))
        if self._board is not None:
            self._board.add_scalar("loss", line.loss, line.step)
            for name, value in line.validation.items():
                self._board.add_scalar(name, value, line.step)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
        if all(type(line["step"]) is int for line in lines):
            return lines
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise InputError(f"{path}: damaged; remove it to resume without the earlier lines")


def _draw(lines: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(6.4, 4.8), dpi=120, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    steps = [line["step"] for line in lines]
    above.plot(steps, [line["loss"] for line in lines], "o-", color="#0b5cad", markersize=3)
    above.set(ylabel="training loss", yscale="log")
    for name in ("cpm", "sensitivity_at_1", "auc"):
        points = [(line["step"], line["validation"][name]) for line in lines if name in line["validation"]]
        if points:
            below.plot(*zip(*points, strict=True), "o-", label=name, markersize=3)
    if below.lines:
        below.legend(frameon=False, fontsize=8)
    below.set(xlabel="step", ylabel="held out")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    return figure


def _board(folder: Path) -> Any:
    try:
        module = importlib.import_module("torch.utils.tensorboard")
    except ImportError:
        raise UsageError("--tensorboard needs tensorboard, which is not installed: pip install tensorboard") from None
    return module.SummaryWriter(folder)
