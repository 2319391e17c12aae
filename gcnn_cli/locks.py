"""Locks between processes and machines that share a folder: a file that names its owner.

filelock's SoftFileLock works on any file system. Its file holds the owner's process number, host and start time. The
lock of a dead process of this machine is taken over. Another machine's processes cannot be looked up, so its lock
stays until somebody deletes it; the same holds between containers that number their processes separately.
"""

import glob
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import SoftFileLock, Timeout

from gcnn_cli.files import writing

_UNSIGNED_AFTER_S = 10.0  # a living process signs its lock at once
_TRY_FOR_S, _TRY_EVERY_S = 0.1, 0.05  # a takeover can need a second attempt
_SETTLES_WITHIN_S = 3.0  # filelock watches a damaged lock for 2 s before it takes over
_NAMESPACE = "?pidns-"  # filelock's mark for a container's own process numbers, after the host's name


@contextmanager
def claimed(path: Path) -> Iterator[str]:
    """Hold a lock during the block. Yields an empty string, or the other holder: 'process 7 on host'.

    Raises OutputError where no lock can be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquired(path)
    if lock is None:
        yield _holder(path)
        return
    try:
        yield ""
    finally:
        for aside in path.parent.glob(f"{glob.escape(path.name)}.*"):  # of processes killed during a takeover
            if leftover := _acquired(aside):
                leftover.release()
        lock.release()


def _acquired(path: Path) -> SoftFileLock | None:
    """Return the lock, or None where another process holds it."""
    _mark_unsigned(path)
    is_readable = _signature(path) is not None or not path.exists()
    lock = SoftFileLock(path)
    try:
        lock.acquire(timeout=_TRY_FOR_S if is_readable else _SETTLES_WITHIN_S, poll_interval=_TRY_EVERY_S)
    except Timeout:
        return None
    return lock


def _mark_unsigned(path: Path) -> None:
    """Mark an old lock without a signature as damaged. Its process was killed before signing it.

    filelock takes over a damaged lock, but leaves an empty one for ever. The mark goes into the file that was looked
    at, even where another lock has taken its name meanwhile.
    """
    with suppress(FileNotFoundError), path.open("r+b") as file:
        state = os.fstat(file.fileno())
        if state.st_size == 0 and time.time() - state.st_mtime > _UNSIGNED_AFTER_S:
            file.write(b"unsigned\n")


def _signature(path: Path) -> tuple[str, str] | None:
    """Return the number and host of the process that signed a lock, None where no signature can be read."""
    try:
        number, host, *_ = path.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        return None
    return number, host.partition(_NAMESPACE)[0]


def _holder(path: Path) -> str:
    number, host = _signature(path) or ("that has just begun", "this or another machine")
    return f"process {number} on {host}"
