"""How many nodules the candidates contain, by how many are kept.

    python tests/benchmarks/candidates.py SCANS [SCANS ...] [--weights candidates]

SCANS are folders of labeled scans: those of `transplants.py` (OUT/labelled, OUT/unlabelled), or the shared data.
A nodule is found if a candidate lies nearer to its center than its radius; nodules under 4 mm are left out.
Scans that the weights name as trained on are left out (`--name-data`), so that every figure is of patients never seen.
Prints Markdown: the shares, the seconds of the stage on this machine, and every nodule that is not among the first 100.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from gcnn_cli.detection.findings import Candidate
from gcnn_cli.detection.lungs import LungConfig, segment_lungs
from gcnn_cli.detection.proposals import ProposalConfig, Proposer
from gcnn_cli.labels.index import read_index
from gcnn_cli.network.proposal_map import make_mapper
from gcnn_cli.network.proposal_weights import load_proposal_model
from gcnn_cli.scan.resample import resample

KEPT = (25, 50, 75, 100, 150, 200, 300, 500)
SHOWN = 100
SMALLEST_MM = 4.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", type=Path, nargs="+")
    parser.add_argument("--weights", default="candidates", help="shipped name or path of proposal weights")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = load_proposal_model(arguments.weights)
    proposer = Proposer(model, make_mapper(model.network, torch.device("cpu")))
    ranks, seconds, missed = [], [], []
    for scan in read_index(arguments.scans).scans:
        nodules = np.array([nodule for nodule in scan.nodules if nodule[3] >= SMALLEST_MM])
        if len(nodules) == 0 or scan.name in model.provenance.get("training_series", ()):
            continue
        grid = resample(scan.read(), model.input.spacing_mm)
        lungs = segment_lungs(grid, LungConfig())
        started = time.monotonic()
        candidates = proposer.propose(grid, lungs, ProposalConfig(kept=max(KEPT)))
        seconds.append(time.monotonic() - started)
        ranks.append(ranks_of(nodules, candidates))
        missed += [(scan.name, *nodule) for nodule in nodules[ranks[-1] >= SHOWN]]
    found = np.concatenate(ranks)
    print("| nodules | seconds a scan | " + " | ".join(f"{count} kept" for count in KEPT) + " |")
    print("|---|---|" + "---|" * len(KEPT))
    shares = " | ".join(f"{(found < count).mean():.3f}" for count in KEPT)
    print(f"| {len(found)} | {np.median(seconds):.1f} | {shares} |\n")
    for name, x, y, z, diameter in missed:
        print(f"- not among the first {SHOWN}: {name} at {x:.1f}, {y:.1f}, {z:.1f} mm, diameter {diameter:.1f} mm")


def ranks_of(nodules: np.ndarray, candidates: list[Candidate]) -> np.ndarray:
    """Return the place of the first candidate inside each nodule [N, 4] (x, y, z, diameter); where none is, 10^9."""
    positions = np.array([candidate.position_mm for candidate in candidates]).reshape(-1, 3)
    inside = np.linalg.norm(positions[None] - nodules[:, None, :3], axis=2) < nodules[:, None, 3] / 2
    return np.where(inside.any(axis=1), inside.argmax(axis=1), 10**9)


if __name__ == "__main__":
    main()
