"""Thin slabs of one phantom, a small random network for them, and runs of the command over folders of them."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
from conftest import make_network
from typer.testing import CliRunner, Result

from gcnn_cli.cli import app
from gcnn_cli.network.contract import Calibration, InputSpec
from gcnn_cli.network.weights import TrainedModel, save_model
from gcnn_cli.phantom import Phantom
from gcnn_cli.scan.volume import Volume
from gcnn_cli.scan.writing import write_metaimage

SLICES = 12


def thin_scan(phantom: Phantom, number: int) -> Volume:
    """A slab through the lungs, another one for each number from 0 to 27."""
    first = 28 + number
    to_world = phantom.volume.to_world.copy()
    to_world[:3, 3] = phantom.volume.position_mm(np.array([first, 0, 0]))
    return Volume(np.ascontiguousarray(phantom.volume.hu[first : first + SLICES]), to_world)


def write_thin_scans(phantom: Phantom, folder: Path, count: int) -> Path:
    """`scan00.mhd` and so on."""
    for number in range(count):
        write_metaimage(thin_scan(phantom, number), folder / f"scan{number:02d}.mhd")
    return folder


def copy_scans(thin: Path, folder: Path, count: int) -> None:
    """The first scans of one folder in a new one."""
    folder.mkdir()
    for number in range(count):
        for path in thin.glob(f"scan{number:02d}.*"):
            shutil.copy(path, folder)


def write_weights(path: Path, seed: int = 0) -> Path:
    """Random weights whose threshold leaves a few of the candidates of each slab."""
    calibration = Calibration(threshold=0.48)
    network = make_network("O", seed=seed)
    save_model(TrainedModel("small", network, InputSpec(spacing_mm=4.0, side=8), calibration), path)
    return path


def run_detect(*arguments: object, **options: object) -> Result:
    """`gcnn detect` in this process."""
    return CliRunner().invoke(app, ["detect", *map(str, arguments)], **options)


def summary_rows(folder: Path) -> list[dict[str, str]]:
    """The rows of cohort.csv, which cohort.json states too."""
    with (folder / "cohort.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    scans = json.loads((folder / "cohort.json").read_text("utf-8"))["scans"]
    assert [[entry["path"], entry["status"], entry["reason"]] for entry in scans] == [
        [row["path"], row["status"], row["reason"]] for row in rows
    ]
    return rows


def contents(folder: Path) -> dict[str, object]:
    """Every file of an output folder by its relative path: bytes, and of JSON the data without its seconds."""
    found: dict[str, object] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        found[name] = without_time(json.loads(path.read_text("utf-8"))) if path.suffix == ".json" else path.read_bytes()
    return found


def without_time(data: object) -> object:
    """JSON data without what differs between two runs of the same."""
    if isinstance(data, dict):
        return {key: without_time(value) for key, value in data.items() if key not in ("seconds", "done_before")}
    return [without_time(value) for value in data] if isinstance(data, list) else data
