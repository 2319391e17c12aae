"""Reports about given volumes, and the positions that a written file holds, whatever its format."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom

from gcnn_cli.detection.findings import ModelSummary, Nodule, Report, ScanSummary
from gcnn_cli.scan.volume import Volume


def report_of(volume: Volume, positions_mm, *, diameter_mm: float = 8.0, warnings=()) -> Report:
    """A report with a nodule at each position; probabilities fall from 0.99 but stay above 0."""
    nodules = []
    for number, position in enumerate(np.asarray(positions_mm, float).reshape(-1, 3)):
        index = volume.index_zyx(position)
        at = int(np.clip(np.round(index[0]), 0, volume.shape[0] - 1))
        uid = volume.source.slice_uids[at] if volume.source.slice_uids else ""
        volume_mm3 = np.pi / 6 * diameter_mm**3
        rate = 0.125 * number or None  # unknown for the first
        nodules.append(
            Nodule(
                tuple(position), tuple(index), 0.99 / (1 + 0.01 * number), diameter_mm, volume_mm3, at + 1, uid, rate
            )
        )
    source = replace(volume.source, warnings=tuple(warnings))
    scan = ScanSummary(
        source, volume.shape, tuple(volume.spacing_zyx.tolist()), tuple(map(tuple, volume.to_world.tolist()))
    )
    model = ModelSummary("octahedral", "b" * 64, "O")
    options = {"average_over": "trivial", "lung_mask": ""}
    return Report(scan, model, tuple(nodules), 0.5, 321, options, "cpu float32", 1.5, tuple(warnings))


def positions_in(path: Path) -> np.ndarray:
    """All nodules' (x, y, z) in LPS mm [N, 3] of a file that was written in one of the formats."""
    text = "" if path.suffix == ".dcm" else path.read_text("utf-8")
    if path.suffix == ".csv":
        found = [[row[f"coord{axis}"] for axis in "XYZ"] for row in csv.DictReader(text.splitlines())]
    elif path.name.endswith(".mrk.json"):
        found = [point["position"] for point in json.loads(text)["markups"][0]["controlPoints"]]
    elif path.name.endswith(".grand-challenge.json"):
        found = [point["point"] for point in json.loads(text)["points"]]
    elif path.suffix == ".json":
        found = [nodule["position_mm"] for nodule in json.loads(text)["nodules"]]
    elif path.suffix == ".html":
        found = re.findall(r'<td class="position">(.*?)</td>', text)
    else:
        found = [item.GraphicData for item in _items(pydicom.dcmread(path)) if item.ValueType == "SCOORD3D"]
    return np.array(found, float).reshape(-1, 3)


def _items(item):
    """All content items of an SR, in order."""
    for child in item.get("ContentSequence", ()):
        yield child
        yield from _items(child)
