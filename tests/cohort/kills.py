"""Runs of `gcnn detect` that are killed (SIGKILL), and what must hold after each kill and at the end.

Each run is a process of its own, forked from a server that has everything loaded, so that a kill costs no start-up.
"""

import json
import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

from cohort.thin import contents, without_time

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        "gcnn_cli.cli",
        "gcnn_cli.cohort.batch",
        "gcnn_cli.network.weights",
        "gcnn_cli.output.table",
        "gcnn_cli.phantom",
        "gcnn_cli.scan.writing",
        "pydantic.type_adapter",  # Typer's own, where it is installed; what is missing is passed over
        "pytest",
        "rich.status",
        "typer.testing",
    ]
)
_HANGS_AFTER_S = 300.0
_TOUCHES = {"os.link", "os.mkdir", "os.remove", "os.rename", "open"}


def run_once(arguments: list[str], *, kill_after_s: float | None = None, kill_at: int | None = None) -> int:
    """The exit code of one run; -9 if it was killed after some time, or before its n-th touch of the output folder."""
    process = _SERVER.Process(target=_detect, args=(arguments, kill_at))
    process.start()
    process.join(_HANGS_AFTER_S if kill_after_s is None else kill_after_s)
    process.kill()
    process.join()
    code = process.exitcode
    process.close()
    return code


def _detect(arguments: list[str], kill_at: int | None) -> None:
    from gcnn_cli.cli import app

    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    if kill_at is not None:
        _die_at(kill_at, arguments[arguments.index("--out") + 1])
    app(["detect", *arguments])


def _die_at(number: int, folder: str) -> None:
    """Kill this process before its n-th change of something in a folder."""
    touched = 0

    def hear(event: str, values: tuple[object, ...]) -> None:
        nonlocal touched
        if event not in _TOUCHES or not str(values[0]).startswith(folder):
            return
        if event == "open" and not (isinstance(values[2], int) and values[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        touched += 1
        if touched == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hear)


@dataclass
class Watch:
    """An output folder between kills, against what an unbroken run wrote."""

    folder: Path
    unbroken: dict[str, object]
    finished: dict[Path, int] = field(default_factory=dict)
    compared: int = 0

    def look(self) -> None:
        """Every visible file is whole and right, and what was finished before has not been touched since."""
        for path in (p for p in self.folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
            content = path.read_bytes()
            if path.name == "cohort.json":
                summary = json.loads(content)
                assert summary["complete"] == all(scan["status"] != "pending" for scan in summary["scans"])
            elif path.name == "cohort.csv":
                assert content.endswith(b"\n")
                assert content.count(b"\n") == self.unbroken["cohort.csv"].count(b"\n")
            else:
                found = without_time(json.loads(content)) if path.suffix == ".json" else content
                assert found == self.unbroken[path.relative_to(self.folder).as_posix()], f"{path} is not whole"
                self.compared += 1
        for path, changed in self.finished.items():
            assert path.stat().st_mtime_ns == changed, f"{path} was made twice"
        for path in self.folder.rglob("*.nodules.json"):  # the last of a scan's files
            for sibling in path.parent.glob(path.name.removesuffix("json") + "*"):
                self.finished[sibling] = sibling.stat().st_mtime_ns

    def end(self) -> None:
        """Everything is there as if nothing had happened, and nothing else."""
        self.look()
        found = contents(self.folder)
        different = {name for name in found.keys() | self.unbroken if found.get(name) != self.unbroken.get(name)}
        assert not different
