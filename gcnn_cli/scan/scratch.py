"""Temporary folders for patient data. What a killed process leaves behind, the next one deletes.

A lock file beside each folder is held while the folder is in use. The system frees it when its process ends, even
by SIGKILL, so a folder whose lock is free has no owner.
"""

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

_PREFIX = "gcnn-"
_LOCK = ".lock"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder that only this user can enter, and delete it afterwards."""
    root = Path(tempfile.gettempdir())
    _delete_abandoned(root)
    folder = root / f"{_PREFIX}{uuid.uuid4().hex}"
    # The lock comes first: a folder without an owner must never look like one that is about to be filled.
    with _held(folder.with_suffix(_LOCK), timeout_s=-1):
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _delete_abandoned(root: Path) -> None:
    """Delete the folders whose lock is free. Other users' locks cannot be opened and are left alone."""
    for lock in root.glob(f"{_PREFIX}*{_LOCK}"):
        with suppress(OSError), _held(lock, timeout_s=0):  # a lock in use is a TimeoutError
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)


@contextmanager
def _held(lock: Path, *, timeout_s: float) -> Iterator[None]:
    """Hold a lock file and delete it. A negative timeout waits without end. Raises TimeoutError, OSError."""
    with FileLock(lock, timeout=timeout_s):
        try:
            yield
        finally:
            with suppress(OSError):  # Windows deletes no open file
                lock.unlink()
