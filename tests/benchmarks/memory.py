"""Memory of a whole `gcnn detect`, by the size of the scan.

    python tests/benchmarks/memory.py [--slices 300 800] [--work DIR] [--threads 2]

The scans are the sample thorax with its voxels repeated onto 512 x 512 pixels of 0.7 mm and as many slices
of 0.9 mm as asked for; where the thorax ends it is mirrored. Each is searched in a process of its own, whose
largest resident memory the system tells (what `/usr/bin/time -v` prints). A Markdown table.
"""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from gcnn_cli.phantom.sample import sample_folder
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.volume import Volume, make_affine
from gcnn_cli.scan.writing import write_metaimage

SIDE, PIXEL_MM, SLICE_MM = 512, 0.7, 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, nargs="+", default=[300, 800])
    parser.add_argument("--work", type=Path, help="keep the scans here")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        print("| scan | voxels in int16 | largest memory | candidates, nodules | seconds |")
        print("|---|---|---|---|---|")
        for slices in arguments.slices:
            path = work / f"tall{slices}.mhd"
            if not path.is_file():
                # Elsewhere: a process starts with the largest memory of the one that starts it.
                writing = multiprocessing.get_context("spawn").Process(target=write_tall, args=(slices, path))
                writing.start()
                writing.join()
            print(_row(path, slices, arguments.threads), flush=True)


def write_tall(slices: int, path: Path) -> None:
    """The sample scan stretched and mirrored to the size."""
    sample = read_volume(sample_folder() / "thorax.mhd")
    step = np.array([SLICE_MM, PIXEL_MM, PIXEL_MM]) / sample.spacing_zyx
    z, y, x = (
        _mirrored(np.round(np.arange(n) * s).astype(int), length)
        for n, s, length in zip((slices, SIDE, SIDE), step, sample.shape, strict=True)
    )
    hu = sample.hu[np.ix_(z, y, x)]
    affine = make_affine(np.array([SLICE_MM, PIXEL_MM, PIXEL_MM]), sample.direction, sample.to_world[:3, 3])
    write_metaimage(Volume(hu, affine, sample.source), path)


def _mirrored(index: np.ndarray, length: int) -> np.ndarray:
    """0, 1, ..., length - 1, length - 1, ..., 1, 0, 0, 1, ..."""
    folded = index % (2 * length)
    return np.where(folded < length, folded, 2 * length - 1 - folded)


def _row(path: Path, slices: int, threads: int) -> str:
    """One line of the table: the scan searched in a process of its own."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        gcnn = [sys.executable, "-c", "from gcnn_cli.cli import main; main()"]
        process = subprocess.Popen([*gcnn, "detect", str(path), "--out", out, "--threads", str(threads), "-q"])
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"gcnn detect {path} ended with {os.waitstatus_to_exitcode(status)}")
        report = json.loads(next(Path(out).glob("*.json")).read_text("utf-8"))
    voxels, seconds = slices * SIDE * SIDE * 2 / 1e9, time.monotonic() - started
    return (
        f"| {SIDE} x {SIDE} x {slices} | {voxels:.2f} GB | {usage.ru_maxrss * 1024 / 1e9:.2f} GB |"
        f" {report['candidates']}, {len(report['nodules'])} | {seconds:.0f} |"
    )


if __name__ == "__main__":
    main()
