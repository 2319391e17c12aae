"""How many nodules the candidates hold, by how many are kept: the filters' order against the small network's.

    python tests/benchmarks/candidates.py SCANS [SCANS ...]

SCANS are folders of labeled scans: those of `transplants.py` (OUT/labelled, OUT/unlabelled), or the shared data.
A nodule is found if a candidate lies nearer to its center than its radius; nodules under 4 mm are left out.
Prints Markdown, and the seconds of both stages on this machine.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from gcnn_cli.detection.candidates import CandidateConfig, find_candidates
from gcnn_cli.detection.findings import Candidate
from gcnn_cli.detection.lungs import LungConfig, segment_lungs
from gcnn_cli.detection.ranking import load_ranker
from gcnn_cli.labels.entries import ScanEntry
from gcnn_cli.labels.index import read_index
from gcnn_cli.network.devices import choose_device
from gcnn_cli.network.weights import load_model
from gcnn_cli.scan.resample import resample

KEPT = (50, 100, 150, 200, 250, 300, 500)
SMALLEST_MM = 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", type=Path, nargs="+")
    parser.add_argument("--model", default="octahedral", help="whose grid is searched")
    arguments = parser.parse_args()
    found: dict[str, list[np.ndarray]] = {"filters alone": [], "small network": []}
    seconds: dict[str, list[float]] = {name: [] for name in found}
    for scan in read_index(arguments.scans).scans:
        if scan.nodules:
            look(scan, arguments.model, found, seconds)
    print("| order | seconds a scan | " + " | ".join(f"{count} kept" for count in KEPT) + " |")
    print("|---|---|" + "---|" * len(KEPT))
    for name, ranks in found.items():
        shares = [f"{(np.concatenate(ranks) < count).mean():.3f}" for count in KEPT]
        print(f"| {name} | {np.mean(seconds[name]):.1f} | " + " | ".join(shares) + " |")
    print(f"\n{len(np.concatenate(found['filters alone']))} nodules of {SMALLEST_MM:g} mm and more.")


def look(scan: ScanEntry, model: str, found: dict[str, list[np.ndarray]], seconds: dict[str, list[float]]) -> None:
    """Ranks of one scan's nodules in both orders, and the time that each took."""
    trained = load_model(model)
    ranker = load_ranker(trained, choose_device("cpu"))
    assert ranker is not None
    grid = resample(scan.read(), trained.input.spacing_mm)
    lungs = segment_lungs(grid, LungConfig())
    every = replace(ranker, config=replace(ranker.config, kept=max(KEPT)))
    orders: dict[str, Callable[[], list[Candidate]]] = {
        "filters alone": lambda: find_candidates(grid, lungs, CandidateConfig()),
        "small network": lambda: every.rank(
            grid, find_candidates(grid, lungs, every.config.proposing(CandidateConfig()))
        ),
    }
    nodules = np.array([nodule for nodule in scan.nodules if nodule[3] >= SMALLEST_MM])
    for name, order in orders.items():
        started = time.monotonic()
        candidates = order()
        seconds[name].append(time.monotonic() - started)
        found[name].append(ranks_of(nodules, candidates))


def ranks_of(nodules: np.ndarray, candidates: list[Candidate]) -> np.ndarray:
    """Place of the first candidate inside each nodule [N, 4] (x, y, z, diameter); a large number where none is."""
    positions = np.array([candidate.position_mm for candidate in candidates])
    inside = np.linalg.norm(positions[None] - nodules[:, None, :3], axis=2) < nodules[:, None, 3] / 2
    return np.where(inside.any(axis=1), inside.argmax(axis=1), 10**9)


if __name__ == "__main__":
    main()
