"""Many spoiled inputs of every kind: read soundly or refused in one line, in bounded time and memory.

    nice -n 5 python tests/benchmarks/fuzz.py [--inputs 12000] [--seed 0] [--kinds 'nii,zip'] [--keep DIR]

Inputs are read in a second process, which is started again when a library has crashed or an input has
taken longer than 10 s of computing. An input's number and the seed make it again: --only KIND:NUMBER reads
one in this process.
Prints a Markdown table; the exit code is 1 when a law was broken.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fuzzing import laws
from fuzzing.inputs import MAKERS, sound_input
from fuzzing.mutators import spoil

MIB = 2**20
# The law is about computing, which a busy machine does not stretch; who only waits is stopped, too.
LIMIT_WALL_S = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(MAKERS))
    parser.add_argument("--keep", type=Path, help="folder for the inputs that broke a law")
    parser.add_argument("--only", metavar="KIND:NUMBER")
    arguments = parser.parse_args()
    if arguments.only:
        kind, _, number = arguments.only.partition(":")
        print(laws.try_input(kind, _random(arguments.seed, kind, int(number))))
        return
    kinds = arguments.kinds.split(",")
    started = time.monotonic()
    rows = {kind: _run_kind(kind, -(-arguments.inputs // len(kinds)), arguments) for kind in kinds}
    print("| kind | inputs | read | refused | broken | slowest CPU s | memory MiB | addresses MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for kind, row in [*rows.items(), ("all", _total(rows.values()))]:
        told = [f"{row[name]:.2f}" for name in ("seconds",)] + [f"{row[n]:.0f}" for n in ("memory", "addresses")]
        counts = [str(int(row[name])) for name in ("inputs", "read", "refused", "broken")]
        print("| " + " | ".join([kind, *counts, *told]) + " |")
    print(f"seed {arguments.seed}, {time.monotonic() - started:.0f} s")
    sys.exit(1 if any(row["broken"] for row in rows.values()) else 0)


def _random(seed: int, kind: str, number: int) -> Random:
    return Random(f"{seed} {kind} {number}")


def _total(rows) -> Counter:
    total: Counter = Counter()
    for row in rows:
        for name, value in row.items():
            is_sum = name in ("inputs", "read", "refused", "broken")
            total[name] = total[name] + value if is_sum else max(total[name], value)
    return total


def _run_kind(kind: str, count: int, arguments: argparse.Namespace) -> Counter:
    """Inputs 0 to count of a kind, each in a worker that lives until it breaks."""
    row: Counter = Counter(inputs=count)
    worker = None
    for number in range(count):
        worker = worker or _Worker(kind, arguments.seed)
        outcome, seconds, memory, addresses = worker.try_number(number)
        if outcome not in ("read", "refused"):
            print(f"{kind}:{number}: {outcome}", file=sys.stderr, flush=True)
            _keep(kind, number, arguments)
            outcome = "broken"
        row[outcome] += 1
        row["seconds"] = max(row["seconds"], seconds)
        row["memory"] = max(row["memory"], memory / MIB)
        row["addresses"] = max(row["addresses"], addresses / MIB)
        if not worker.process.is_alive():
            worker = None
    if worker:
        worker.stop()
    print(f"{kind}: {dict(row)}", file=sys.stderr, flush=True)
    return row


def _keep(kind: str, number: int, arguments: argparse.Namespace) -> None:
    if arguments.keep is None:
        return
    _, files = sound_input(kind)
    for name, content in spoil(files, _random(arguments.seed, kind, number)).items():
        path = arguments.keep / f"{kind} {number}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


class _Worker:
    """A process that reads inputs by their number and tells outcome, seconds, and memory taken."""

    def __init__(self, kind: str, seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, kind, seed), daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()  # imports and the first, sound input are done

    def try_number(self, number: int) -> tuple[str, float, int, int]:
        used, deadline = _cpu_seconds(self.process.pid), time.monotonic() + LIMIT_WALL_S
        self.pipe.send(number)
        try:
            while time.monotonic() < deadline and _cpu_seconds(self.process.pid) - used < laws.LIMIT_S:
                if self.pipe.poll(1):
                    outcome, memory, addresses = self.pipe.recv()
                    return outcome, _cpu_seconds(self.process.pid) - used, memory, addresses
            outcome = f"no answer after {_cpu_seconds(self.process.pid) - used:.0f} s of computing"
        except EOFError:
            self.process.join()
            return f"the process died with {self.process.exitcode}", 0, 0, 0
        self.process.kill()
        self.process.join()
        return outcome, laws.LIMIT_S, 0, 0

    def stop(self) -> None:
        self.pipe.close()
        self.process.join()


def _cpu_seconds(pid: int | None) -> float:
    """User and system time of a process, as Linux tells it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _serve(pipe: Connection, kind: str, seed: int) -> None:
    name, files = sound_input(kind)
    with tempfile.TemporaryDirectory() as temporary:
        for file, content in files.items():
            (Path(temporary) / file).write_bytes(content)
        path = Path(temporary) / name if name else Path(temporary)
        for command in (False, True):  # what is loaded late is no allocation of an input's
            laws.judge(kind, path, command=command)
    pipe.send("ready")
    # An allocation of terabytes that the system would promise is refused, and then reported as one.
    limit = _status("VmSize") + 8 * 1024 * MIB
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    while True:
        try:
            number = pipe.recv()
        except EOFError:
            return
        memory, peak = _reset_peak(), _status("VmPeak")
        try:
            outcome = laws.try_input(kind, _random(seed, kind, number))
        except laws.LawBroken as broken:
            outcome = str(broken)
        taken, addresses = _status("VmHWM") - memory, max(0, _status("VmPeak") - max(peak, _status("VmSize")))
        if outcome in ("read", "refused") and max(taken, addresses) > laws.LARGEST_BYTES:
            outcome = f"took {taken // MIB} MiB of memory, {addresses // MIB} MiB of addresses"
        pipe.send((outcome, taken, addresses))


def _reset_peak() -> int:
    """Start measuring the largest memory anew; returns what is held now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    """Bytes, from what Linux tells of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
