"""How the cost grows: with slices, with candidates, with the group's order, with worker processes.

    python tests/benchmarks/growth.py [--plot docs/img/growth.png] [--threads 2] [--rounds 3]

Slices: `gcnn detect` in a process of its own on scans of 512 x 512 pixels (`memory.py` tells how they are made).
Candidates: the shipped network alone. Order: untrained networks of about as many parameters each,
in turn in every round. Workers: a cohort of copies of the sample scan, start-up included. Markdown tables,
medians with their range.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from memory import write_tall
from timing import in_turn, seconds

from gcnn_cli.network.architecture import FIELDS, GCNN, NetworkConfig
from gcnn_cli.network.devices import choose_device
from gcnn_cli.network.inference import make_scorer
from gcnn_cli.network.weights import load_model
from gcnn_cli.phantom.sample import sample_folder
from gcnn_cli.symmetry.groups import make_group

SLICES = (100, 200, 400, 800, 1600)
CANDIDATES = (50, 100, 200, 400, 800)
GROUPS = ("trivial", "C4", "D4", "D4h", "O", "Oh")
WORKERS = (1, 2)
COHORT = 8
COMMAND = [sys.executable, "-m", "gcnn_cli"]

Table = dict[str, np.ndarray]  # what was varied -> seconds of every round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as temporary:
        tables = {
            "slices": by_slices(Path(temporary), arguments.threads),
            "candidates": by_candidates(arguments.rounds),
            "orientations of the group (patches/s)": by_order(arguments.rounds),
            f"processes, for {COHORT} scans": by_workers(Path(temporary), arguments.threads),
        }
    for what, table in tables.items():
        print_table(what, table)
    if arguments.plot:
        draw(tables, arguments.plot)


def by_slices(folder: Path, threads: int) -> Table:
    """Once for each size: the largest takes most of a minute."""
    table = {}
    for slices in SLICES:
        scan = folder / f"tall{slices}.mhd"
        write_tall(slices, scan)
        command = [*COMMAND, "detect", scan, "--out", folder / f"out{slices}", "--threads", threads, "-q"]
        table[str(slices)] = np.array([seconds(lambda c=command: run(c))])
    return table


def by_candidates(rounds: int) -> Table:
    scorer = make_scorer(load_model("octahedral").network, choose_device("cpu"))
    side = NetworkConfig().side
    patches = {count: torch.randn(count, 1, side, side, side) for count in CANDIDATES}
    return timed({str(count): lambda p=p: scorer.score(p.split(32)) for count, p in patches.items()}, rounds)


def by_order(rounds: int) -> Table:
    """Patches a second of untrained networks."""
    patches = torch.randn(64, 1, *(NetworkConfig().side,) * 3)
    cpu = choose_device("cpu")
    scorers = {}
    for name in GROUPS:
        network = GCNN(replace(NetworkConfig(), group=name, fields=FIELDS[name])).eval()
        scorers[f"{make_group(name).order} ({name})"] = make_scorer(network, cpu)
    table = timed({name: lambda s=s: s.score(patches.split(32)) for name, s in scorers.items()}, rounds)
    return {name: len(patches) / values for name, values in table.items()}


def by_workers(folder: Path, threads: int) -> Table:
    cohort = folder / "cohort"
    cohort.mkdir()
    sample = sample_folder()
    for number in range(COHORT):
        text = (sample / "thorax.mhd").read_text().replace("thorax.zraw", f"scan{number}.zraw")
        (cohort / f"scan{number}.mhd").write_text(text)
        shutil.copy(sample / "thorax.zraw", cohort / f"scan{number}.zraw")
    table = {}
    for workers in WORKERS:
        how = ["--threads", threads] if workers == 1 else ["--workers", workers]
        command = [*COMMAND, "detect", cohort, "--out", folder / f"by{workers}", "-q", *how]
        table[str(workers)] = np.array([seconds(lambda c=command: run(c))])
    return table


def timed(forms: dict[str, Callable[[], object]], rounds: int) -> Table:
    """All forms in turn in every round, after one round to warm up."""
    return dict(zip(forms, in_turn(forms.values(), rounds).T, strict=True))


def run(command: list[object]) -> None:
    subprocess.run([str(part) for part in command], check=True)


def print_table(what: str, table: Table) -> None:
    unit = "patches/s" if "patches/s" in what else "seconds"
    print(f"\n| {what.replace(' (patches/s)', '')} | {unit} |\n|---|---|")
    for name, values in table.items():
        spread = "" if len(values) == 1 else f" ({values.min():.3g}-{values.max():.3g})"
        print(f"| {name} | {np.median(values):.3g}{spread} |")


def draw(tables: dict[str, Table], path: Path) -> None:
    figure = Figure(figsize=(11, 3.2), dpi=110, layout="constrained")
    for number, (what, table) in enumerate(tables.items(), start=1):
        axes = figure.add_subplot(1, len(tables), number)
        places = [int(name.split()[0]) for name in table]
        axes.plot(places, [float(np.median(values)) for values in table.values()], "o-", color="#0b5cad")
        axes.set(xlabel=what.replace(" (patches/s)", ""), ylim=(0, None))
        axes.set_ylabel("patches/s" if "patches/s" in what else "seconds")
        # Every value that is not written over the one before.
        shown = [place for before, place in pairwise([-max(places), *places]) if place - before > 0.12 * max(places)]
        axes.set_xticks(shown)
        axes.grid(alpha=0.3)
    figure.savefig(path)


if __name__ == "__main__":
    main()
