"""Expected failures, each with one line of text and an exit code.

The text says what failed, quotes the offending value and names the remedy. It never holds
a patient's name or identifier.
"""

import errno
import unicodedata
from pathlib import Path
from typing import Self

_UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode categories: controls, formats, surrogates, line breaks


def printable(text: str) -> str:
    """Escape control characters, surrogates and line breaks, so that text from a file stays on its line.

    This is the only such rule: errors apply it to themselves, and the command line to all other lines about files.
    """
    return "".join(repr(c)[1:-1] if unicodedata.category(c) in _UNPRINTABLE else c for c in text)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory ran out: for Python, NumPy, the system or one of PyTorch's allocators.

    PyTorch raises OutOfMemoryError for an accelerator, but a plain RuntimeError for the CPU.
    """
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    text = str(error) if isinstance(error, RuntimeError) else ""
    return type(error).__name__ == "OutOfMemoryError" or any(
        part in text for part in ("DefaultCPUAllocator", "can't allocate memory", "not enough memory", "out of memory")
    )


class GcnnError(Exception):
    """An expected failure. The process returns `exit_code`.

    reason: the text without the path
    path:   the file or folder that the failure concerns; None where there is none. The text starts with it.
    """

    exit_code = 1

    def __init__(self, reason: str, *, path: Path | str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = None if path is None else Path(path)

    def __str__(self) -> str:
        return printable(self.reason if self.path is None else f"{self.path}: {self.reason}")

    def moved(self, old: Path, new: Path) -> Self:
        """Return the same error with a path below `old` named from `new`."""
        if self.path is None or not self.path.is_relative_to(old):
            return self
        return type(self)(self.reason, path=new / self.path.relative_to(old))

    def located(self, path: Path) -> Self:
        """Return the same error about `path`. A path of its own stays in the text unless it lies in `path`."""
        if self.path is None:
            return type(self)(self.reason, path=path)
        if self.path.is_relative_to(path):
            return self
        return type(self)(f"{self.path}: {self.reason}", path=path)


class UsageError(GcnnError):
    """The options contradict each other or the input."""

    exit_code = 2


class InputError(GcnnError):
    """The input cannot be read, or is not a CT of the chest."""

    exit_code = 3


class SeriesChoiceError(GcnnError):
    """Several series were found and none was chosen."""

    exit_code = 4


class GeometryError(GcnnError):
    """The slices do not form a regular, unsheared stack: positions would be wrong."""

    exit_code = 5


class ModelError(GcnnError):
    """The weights are missing, altered or invalid."""

    exit_code = 6


class DeviceError(GcnnError):
    """The compute device is unavailable or ran out of memory."""

    exit_code = 7


class BatchError(GcnnError):
    """Some scans of a batch failed; the results of the others were written."""

    exit_code = 8


class OutputError(GcnnError):
    """A result cannot be written: no permission, no space."""

    exit_code = 9
