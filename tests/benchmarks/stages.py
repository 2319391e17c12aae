"""Where the time of `gcnn detect` goes, from the start of the process to the written files.

    python tests/benchmarks/stages.py SCAN [SCAN ...] [--runs 5] [--threads 2]

Every run is a new process. Prints for each scan the median seconds of every stage, its range over the runs and its
share, and the peak of resident memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", type=Path, nargs="+")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)  # when the parent started this process
    arguments = parser.parse_args()
    if arguments.child:
        json.dump(run(arguments.scans[0], arguments.child, arguments.threads), sys.stdout)
        return
    for scan in arguments.scans:
        runs = [started(scan, arguments.threads) for _ in range(arguments.runs)]
        print_table(scan, runs)


def started(scan: Path, threads: int) -> dict[str, float]:
    """The stages of one run in a process of its own."""
    command = [sys.executable, __file__, str(scan), "--threads", str(threads), "--child", repr(time.time())]
    return dict(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))


def run(scan: Path, begun: float, threads: int) -> dict[str, float]:
    """Seconds of every stage, in their order, and the peak of memory."""
    marks = [("start-up", begun)]

    def tell(stage: object) -> None:
        marks.append((str(stage).split()[0], time.time()))  # without the number of candidates

    import torch

    from gcnn_cli.detection.detector import make_detector
    from gcnn_cli.detection.pipeline import detect
    from gcnn_cli.network.devices import choose_device
    from gcnn_cli.network.weight_files import DEFAULT_MODEL
    from gcnn_cli.network.weights import load_model
    from gcnn_cli.output.formats import output_paths, write_report
    from gcnn_cli.scan.reading import read_volume

    torch.set_num_threads(threads)
    detector = make_detector(load_model(DEFAULT_MODEL), choose_device("cpu"))
    tell("reading")
    volume = read_volume(scan)
    report = detect(volume, detector, notify=tell)
    tell("writing")
    with tempfile.TemporaryDirectory() as out:
        write_report(report, output_paths(scan, Path(out), ("csv", "json")), overwrite=False, scan=volume)
    tell("end")
    seconds: dict[str, float] = {}
    for (stage, first), (_, last) in pairwise(marks):
        seconds[stage] = seconds.get(stage, 0.0) + last - first
    seconds["peak memory, GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    return seconds


def print_table(scan: Path, runs: list[dict[str, float]]) -> None:
    """Markdown."""
    stages = [name for name in runs[0] if "memory" not in name]
    totals = np.array([sum(r[stage] for stage in stages) for r in runs])
    print(f"\n{scan.name}, {len(runs)} runs\n\n| stage | seconds (range) | share |\n|---|---|---|")
    for stage in [*stages, "all"]:
        values = totals if stage == "all" else np.array([r[stage] for r in runs])
        share = f"{np.median(values / totals):.0%}"
        print(f"| {stage} | {np.median(values):.2f} ({values.min():.2f}-{values.max():.2f}) | {share} |")
    print(f"\npeak memory {max(r['peak memory, GB'] for r in runs):.2f} GB")


if __name__ == "__main__":
    main()
