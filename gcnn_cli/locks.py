"""One process at a time: a lock file that says who works here.

A file that only one process can create, on any file system, is the lock; its text is host, process and, where the
system tells, when that process began, as numbers are used again. A process that is killed leaves its lock behind: on
the same machine that is seen, and the lock taken over. Whether a process of another machine is still there cannot be
told, so its lock stands until somebody deletes it.
"""

import glob
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

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
            file.write(" ".join(_Owner(socket.gethostname(), str(os.getpid()), _began(os.getpid()))).rstrip())
    except FileExistsError:
        owner = _owner(path) or _Owner("this or another machine", "that has just begun")
        return f"process {owner.number} on {owner.host}"
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


class _Owner(NamedTuple):
    """Who signed a lock. began: the process's first moment, empty where the system does not tell."""

    host: str
    number: str
    began: str = ""


def _owner(path: Path) -> _Owner | None:
    """Who signed a lock; None where nobody did, or it is not there."""
    try:
        return _Owner(*path.read_text("utf-8").split())
    except (OSError, ValueError, TypeError):
        return None


def _began(number: int) -> str:
    """Clock ticks from the machine's start to the process's, on Linux; elsewhere an empty string."""
    try:
        # The name in the second field may hold anything, so fields are counted from its end.
        return Path(f"/proc/{number}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _is_stale(path: Path, owner: _Owner | None) -> bool:
    """Whether a lock is of a process of this machine that is no more, or of one that died before it signed."""
    if owner is None:
        try:
            return time.time() - path.stat().st_mtime > _SIGNED_WITHIN_S
        except FileNotFoundError:
            return False
    if owner.host != socket.gethostname() or not owner.number.isdecimal():
        return False
    try:
        os.kill(int(owner.number), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    began = _began(int(owner.number))
    return bool(owner.began and began) and owner.began != began
