"""Kills `gcnn detect FOLDER --resume` again and again at random moments, and counts what is lost: nothing.

    python tests/benchmarks/kills.py [--kills 100] [--scans 8] [--seed 1]

Synthetic scans, one of which cannot be read. Every other kill comes at a random time, the others just before a
random creation, renaming or removal of a file, where a random time would hardly ever fall. After each kill every file
under its own name must be whole and equal to that of a run which nobody disturbed, and what was finished must stay as
it was. When a run comes through, the whole folder must equal the undisturbed one, and the next kill falls into an
empty folder.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cohort.kills import Watch, run_once
from cohort.thin import contents, write_thin_scans, write_weights

from gcnn_cli.phantom import make_phantom, quick_config

_TOUCHES = 60  # creations, renamings and removals, of the hundred or so of one run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--scans", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        scans = write_thin_scans(make_phantom(quick_config(3, nodules=7)), work / "scans", arguments.scans - 1)
        (scans / "spoiled.mha").write_text("hello")
        weights = write_weights(work / "small.safetensors")
        command = [str(scans), "--model", str(weights), "--threads", "1", "--resume", "--out"]
        report(arguments.kills, command, work, random.Random(arguments.seed))


def report(kills: int, command: list[str], work: Path, draw: random.Random) -> None:
    """Kill and resume; every law that does not hold is an AssertionError."""
    run_once([*command, str(work / "warm")])
    started = time.monotonic()
    assert run_once([*command, str(work / "unbroken")]) == 8
    longest = time.monotonic() - started
    unbroken = contents(work / "unbroken")
    killed, parts, compared, whole = 0, 0, 0, 0
    watch = Watch(work / "0", unbroken)
    while killed < kills:
        moment = (
            {"kill_after_s": draw.uniform(0, longest / 2)} if killed % 2 else {"kill_at": draw.randint(1, _TOUCHES)}
        )
        code = run_once([*command, str(watch.folder)], **moment)
        if code == -9:
            killed += 1
            parts += sum(path.name.endswith(".part") for path in watch.folder.rglob(".*"))
            watch.look()
            continue
        compared, whole, watch = compared + ended(watch, code), whole + 1, Watch(work / str(killed), unbroken)
    if watch.folder.exists():
        compared, whole = compared + ended(watch, run_once([*command, str(watch.folder)])), whole + 1
    print(f"kills: {killed}, half of them within {longest / 2:.1f} s of a start, half at a touch of a file")
    print(f"temporary files that they left, all cleared by the next run: {parts}")
    print(f"folders that came through: {whole}, of {len(unbroken)} files each")
    print(f"files compared with those of an undisturbed run: {compared}; different, half written or made twice: 0")


def ended(watch: Watch, code: int) -> int:
    """The files compared in a folder that is complete."""
    assert code == 8
    watch.end()
    return watch.compared


if __name__ == "__main__":
    main()
