"""Another checkout of gcnn against this one, side by side: time, memory and nodules of whole `gcnn detect`.

    python tests/benchmarks/versions.py CHECKOUT SCAN [SCAN ...] [--model NAME] [--other-model NAME] [--runs 3]

Both take turns. Prints for each scan the median seconds and the largest memory of both and their ratios, and how the
nodules of this checkout at 0.005 and above differ from the other's: pairs are the nearest.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("scans", type=Path, nargs="+")
    parser.add_argument("--model", default="octahedral")
    parser.add_argument("--other-model", help="weights of the other checkout; default: --model")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    print("| scan | s, other | s, this | ratio | GB, other | GB, this | ratio | nodules | moved mm | probability |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for scan in arguments.scans:
        model = arguments.model
        versions = ((arguments.checkout.resolve(), arguments.other_model or model), (HERE, model))
        runs = [[detected(tree, scan.resolve(), name) for tree, name in versions] for _ in range(arguments.runs)]
        seconds, memory = (np.array([[one[n] for one in pair] for pair in runs]) for n in (0, 1))
        (s_other, s_this), (gb_other, gb_this) = np.median(seconds, axis=0), memory.max(axis=0)
        other, this = (one[2] for one in runs[0])
        print(
            f"| {scan.name} | {s_other:.2f} | {s_this:.2f} | {s_this / s_other:.2f} | {gb_other:.2f} | {gb_this:.2f}"
            f" | {gb_this / gb_other:.2f} | {difference(other, this)} |",
            flush=True,
        )


def detected(tree: Path, scan: Path, model: str) -> tuple[float, float, list[dict[str, Any]]]:
    """Seconds, largest resident memory in GB, and nodules, of a process of its own."""
    with tempfile.TemporaryDirectory() as out:
        options = ["--model", model, "--threshold", "0.005", "--out", out, "--quiet"]
        begun = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-m", "gcnn_cli", "detect", scan, *options],
            cwd=tree,
            env={**os.environ, "PYTHONPATH": str(tree)},
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begun
        if status:
            sys.exit(f"gcnn detect failed in {tree}")
        (report,) = Path(out).glob("*.nodules.json")
        return seconds, usage.ru_maxrss / 1024**2, json.loads(report.read_text())["nodules"]


def difference(other: list[dict[str, Any]], this: list[dict[str, Any]]) -> str:
    """Three cells: the numbers of nodules, and the largest differences in place and probability."""
    if not other or not this:
        return f"{len(other)}, {len(this)} | |"
    places = np.array([nodule["position_mm"] for nodule in this])
    moved, changed = [], []
    for nodule in other:
        away = np.linalg.norm(places - nodule["position_mm"], axis=1)
        moved.append(away.min())
        changed.append(abs(this[int(away.argmin())]["probability"] - nodule["probability"]))
    return f"{len(other)}, {len(this)} | {max(moved):.3f} | {max(changed):.4f}"


if __name__ == "__main__":
    main()
