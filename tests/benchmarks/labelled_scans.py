"""Ranks of the reference nodules in labeled scans: among the candidates, and in the report.

    python tests/benchmarks/labelled_scans.py DATA [--model octahedral]

DATA holds scans and annotations.csv, annotations_excluded.csv as `gcnn train` reads them. Prints Markdown.
Peak memory is the process's own, read at the end.
"""

import argparse
import resource
import time
from pathlib import Path

import numpy as np

from gcnn_cli.detection.detector import make_detector
from gcnn_cli.detection.lungs import LungConfig, segment_lungs
from gcnn_cli.detection.pipeline import detect
from gcnn_cli.detection.proposals import ProposalConfig
from gcnn_cli.labels.index import read_index
from gcnn_cli.labels.marks import UNMEASURED_MM, radius_mm
from gcnn_cli.network.devices import choose_device
from gcnn_cli.network.weights import load_model
from gcnn_cli.scan.resample import resample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="octahedral")
    arguments = parser.parse_args()
    model = load_model(arguments.model)
    detector = make_detector(model, choose_device("cpu"))
    print("| scan | readers | diameter mm | rank among candidates | rank in the report | probability | off by mm |")
    print("|---|---|---|---|---|---|---|")
    footer = []
    for scan in read_index([arguments.data]).scans:
        if not scan.labelled:
            continue
        started = time.monotonic()
        volume = scan.read()
        report = detect(volume, detector, threshold=0.0)
        seconds = time.monotonic() - started
        grid = resample(volume, detector.proposer.model.input.spacing_mm)
        every = ProposalConfig(kept=100_000)
        candidates = detector.proposer.propose(grid, segment_lungs(grid, LungConfig()), every)
        places = np.array([c.position_mm for c in candidates])
        found = np.array([n.position_mm for n in report.nodules])
        hits: set[int] = set()
        marked = np.array([nodule[:3] for nodule in scan.nodules])
        for readers, marks in (("3-4", scan.nodules), ("1-2", scan.excluded)):
            for x, y, z, diameter in marks:
                if readers == "1-2" and (diameter == UNMEASURED_MM or first_inside(marked, (x, y, z), 5.0)):
                    continue
                radius = float(radius_mm(diameter))
                rank = first_inside(places, (x, y, z), 2 * radius)
                place = first_inside(found, (x, y, z), 2 * radius)
                hits |= set(np.flatnonzero(np.linalg.norm(found - (x, y, z), axis=1) < radius).tolist())
                row = [scan.name, readers, f"{diameter:.1f}", str(rank or "none"), str(place or "none")]
                if place:
                    off = float(np.linalg.norm(found[place - 1] - (x, y, z)))
                    row += [f"{report.nodules[place - 1].probability:.3f}", f"{off:.1f}"]
                else:
                    row += ["", ""]
                print("| " + " | ".join(row) + " |", flush=True)
        alarms = sum(
            n.probability >= model.calibration.threshold for k, n in enumerate(report.nodules) if k not in hits
        )
        footer.append(f"{scan.name}: {alarms} other findings at the default threshold, {seconds:.0f} s")
    print("\n" + "\n".join(f"- {line}" for line in footer))
    print(
        f"- peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB, all scans in one process"
    )


def first_inside(places: np.ndarray, center: tuple[float, float, float], diameter: float) -> int:
    """1-based rank of the first place within the radius; 0 for none."""
    inside = np.flatnonzero(np.linalg.norm(places - center, axis=1) < diameter / 2)
    return int(inside[0]) + 1 if len(inside) else 0


if __name__ == "__main__":
    main()
