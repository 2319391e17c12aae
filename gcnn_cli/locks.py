"""One process at a time: a lock file that says who works here.

A file that only one process can create, on any file system, is the lock; its text is host and process. A process
that is killed leaves its lock behind: on the same machine that is seen, and the lock taken over. Whether a process
of another machine is still there cannot be told, so its lock stands until somebody deletes it.
"""

import glob
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gcnn_cli.errors import OutputError

_STALE = ".stale"
_SIGNED_WITHIN_S = 10.0  # from creating a lock to its text; killed in between, it stays empty


@contextmanager
def claimed(path: Path) -> Iterator[str]:
    """Hold a lock for the time of the block. Yields an empty string, or who else holds it: 'process 7 on host'.

    Raises OutputError where no lock can be written.
    """
    holder = _claim(path)
    try:
        yield holder
    finally:
        if not holder:
            for aside in path.parent.glob(f"{glob.escape(path.name)}.*{_STALE}"):  # of who was killed taking over
                aside.unlink(missing_ok=True)
            path.unlink(missing_ok=True)


def _claim(path: Path) -> str:
    """Create the lock; the other holder, or an empty string."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        return _create(path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from None


def _create(path: Path) -> str:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(f"{socket.gethostname()} {os.getpid()}")
    except FileExistsError:
        host, number = _owner(path) or ("this or another machine", "that has just begun")
        return f"process {number} on {host}"
    return ""


def _remove_stale(path: Path) -> None:
    """Out of the way with the lock of a dead process, and with no other that came in the meantime."""
    owner = _owner(path)
    if not _is_stale(path, owner):
        return
    aside = path.with_name(f"{path.name}.{os.getpid()}{_STALE}")
    with suppress(FileNotFoundError):  # somebody else was first
        path.rename(aside)
        if _owner(aside) == owner:
            aside.unlink()
        else:
            aside.rename(path)


def _owner(path: Path) -> tuple[str, str] | None:
    """Host and process number in a lock; None where it holds none, or is not there."""
    try:
        host, number = path.read_text("utf-8").split()
    except (OSError, ValueError):
        return None
    return host, number


def _is_stale(path: Path, owner: tuple[str, str] | None) -> bool:
    """Whether a lock is of a process of this machine that is no more, or of one that died before it signed."""
    if owner is None:
        try:
            return time.time() - path.stat().st_mtime > _SIGNED_WITHIN_S
        except FileNotFoundError:
            return False
    host, number = owner
    if host != socket.gethostname() or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False
