"""A simulated cluster: where the scheduler and the one writer of a cohort reach their limits.

    python tests/benchmarks/cluster.py [--workers 64] [--scans 1000 10000] [--seconds 0.1] [--plot docs/img/cluster.png]

The workers are real Dask workers, all in one process, and their scans sleep: each takes `--seconds`, a hundredth of a
real scan's time by default, and returns the report and the files of the sample scan. Everything else is as in use:
`gcnn detect --cluster` in this process submits the scans, writes every result and keeps the summary. Prints for each
size of cohort the scans per second, beside what the workers alone could do, and the seconds of this process for each
scan, which no cluster can go below. From the first follows how many workers of real scans one client keeps busy.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from matplotlib.figure import Figure

from gcnn_cli.cohort import cluster
from gcnn_cli.cohort.batch import run_cohort
from gcnn_cli.cohort.jobs import ScanJob, ScanResult, run_job
from gcnn_cli.cohort.request import Request
from gcnn_cli.cohort.scans import Cohort, Scan
from gcnn_cli.detection.detector import make_detector
from gcnn_cli.network.weight_files import DEFAULT_MODEL, DEFAULT_PROPOSALS
from gcnn_cli.network.weights import load_model

SAMPLE = Path(__file__).resolve().parents[2] / "sample_data" / "thorax.mhd"
REAL_S = 9.65  # of the 133-slice scan on two cores: docs/performance.md


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[64])
    parser.add_argument("--scans", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.seconds)
        return
    print("| workers | scans | scans/s | of the workers' own rate | client's ms a scan | real workers kept busy |")
    print("|---" * 6 + "|")
    rows = []
    for workers in arguments.workers:
        for scans in arguments.scans:
            seconds, cpu = simulated(workers, scans, arguments.seconds)
            rate = scans / seconds
            rows.append((workers, scans, rate))
            cells = (f"{rate * arguments.seconds / workers:.2f}", f"{1000 * cpu / scans:.1f}", f"{rate * REAL_S:,.0f}")
            print(f"| {workers} | {scans:,} | {rate:.0f} | {' | '.join(cells)} |", flush=True)
    if arguments.plot:
        draw(rows, arguments.plot)


def simulated(workers: int, scans: int, seconds: float) -> tuple[float, float]:
    """Wall-clock and CPU seconds of the client for a cohort."""
    command = [sys.executable, __file__, "--serve", str(workers), "--seconds", str(seconds)]
    with tempfile.TemporaryDirectory() as out, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        address = server.stdout.readline().strip()
        model = load_model(DEFAULT_MODEL)
        settings = cluster.settings_for(
            DEFAULT_MODEL, model.sha256, device="cpu", average_over="Oh", proposals=DEFAULT_PROPOSALS, threads=None
        )
        cohort = Cohort(tuple(Scan(Path(f"scan{n}.mhd"), f"scan{n}") for n in range(scans)), is_batch=True)
        request = Request(("csv", "json"), Path(out), model.calibration.threshold)
        server_ends = contextlib.ExitStack()
        server_ends.callback(server.terminate)
        with server_ends, cluster.run_on_cluster(settings, address=address) as runner:
            begun, cpu = time.monotonic(), time.process_time()
            done = sum(scan.result.failure is None for scan in run_cohort(cohort, request, model, runner))
            taken = time.monotonic() - begun, time.process_time() - cpu
    assert done == scans
    return taken


def serve(workers: int, seconds: float) -> None:
    """Start a scheduler and its workers in this process, print the address and wait to be ended."""
    detector = make_detector(load_model(DEFAULT_MODEL), torch.device("cpu"))
    with tempfile.TemporaryDirectory() as out:
        request = Request(("csv", "json"), Path(out), detector.model.calibration.threshold)
        found = run_job(ScanJob(Scan(SAMPLE, "thorax"), request), detector)
    assert found.report

    def asleep(job: ScanJob, _: cluster.DetectorSettings) -> ScanResult:
        time.sleep(seconds)
        return replace(found, seconds=seconds)

    cluster._run_on_worker = asleep  # what the client names is looked up here, where the workers are
    asleep.__module__, asleep.__qualname__ = cluster.__name__, "_run_on_worker"
    # Each worker would watch and profile this process, as on real machines as many processors do.
    unwatched = {"distributed.admin.system-monitor.interval": "1h", "distributed.worker.profile.enabled": False}
    options = {"processes": False, "protocol": "tcp", "memory_limit": None, "dashboard_address": None}
    with (
        cluster.dask.config.set(unwatched),
        cluster.LocalCluster(n_workers=workers, threads_per_worker=1, silence_logs=50, **options) as made,
    ):
        print(made.scheduler_address, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(1e6)


def draw(rows: list[tuple[int, int, float]], path: Path) -> None:
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for workers in sorted({row[0] for row in rows}):
        own = [row for row in rows if row[0] == workers]
        axes.plot([row[1] for row in own], [row[2] for row in own], "o-", label=f"{workers} workers")
    axes.set(xscale="log", xlabel="scans in the cohort", ylabel="scans per second, at most")
    axes.set_ylim(0, 1.2 * max(row[2] for row in rows))
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
