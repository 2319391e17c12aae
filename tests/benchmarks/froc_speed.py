"""Time and memory of an evaluation of LUNA16's size.

    python tests/benchmarks/froc_speed.py LUNA16_FOLDER [--keep DIR]

LUNA16_FOLDER holds LUNA16's annotations.csv, annotations_excluded.csv and seriesuids.csv. Predictions are
made from them with seeded noise: a hit for nine nodules of ten, marks in excluded places, and false
positives up to 50,000. The command is run as a user runs it, on one core. --keep leaves the predictions in a
folder, with another seed's to compare.
"""

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PREDICTIONS = 50_000


def write_predictions(luna16: Path, path: Path, seed: int = 0) -> None:
    """Seeded predictions in LUNA16's columns."""
    rng = np.random.default_rng(seed)
    series = (luna16 / "seriesuids.csv").read_text().split()
    rows = []
    for name, share, mean in (("annotations.csv", 0.9, 2.0), ("annotations_excluded.csv", 0.3, 0.5)):
        with (luna16 / name).open(newline="") as file:
            for row in csv.DictReader(file):
                if rng.random() < share:
                    x, y, z = (float(row[f"coord{axis}"]) + rng.normal(0, 0.8) for axis in "XYZ")
                    rows.append((row["seriesuid"], x, y, z, rng.normal(mean, 1)))
    rows = rows[:PREDICTIONS]
    while len(rows) < PREDICTIONS:
        place = rng.uniform(-150, 150, 3)
        rows.append((series[rng.integers(len(series))], *place, rng.normal(0, 1)))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("seriesuid", "coordX", "coordY", "coordZ", "probability"))
        writer.writerows(
            (s, *(f"{v:.4f}" for v in place), f"{1 / (1 + np.exp(-score)):.6g}") for s, *place, score in rows
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("luna16", type=Path)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    luna16 = arguments.luna16
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        for seed in (0, 1):
            write_predictions(luna16, arguments.keep / f"predictions_{seed}.csv", seed)
    with tempfile.TemporaryDirectory() as folder:
        predictions = Path(folder) / "predictions.csv"
        write_predictions(luna16, predictions)
        command = [
            *(sys.executable, "-c", "from gcnn_cli.cli import main; main()", "evaluate", "--froc"),
            *("--predictions", str(predictions), "--annotations", str(luna16 / "annotations.csv")),
            *("--excluded", str(luna16 / "annotations_excluded.csv"), "--series", str(luna16 / "seriesuids.csv")),
            *("--out", folder, "--quiet"),
        ]
        one_core = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        started = time.monotonic()
        subprocess.run(command, check=True, env=one_core, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - started
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        counts = json.loads((Path(folder) / "froc.json").read_text())["counts"]
    print(f"{counts['scans']} scans, {counts['nodules']} nodules, {counts['marks']} marks, 1,000 resamples:")
    print(f"{seconds:.1f} s on one core, {peak:.2f} GB")


if __name__ == "__main__":
    main()
