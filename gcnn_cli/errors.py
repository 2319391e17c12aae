"""Expected failures: one line of text and an exit code each.

The text says what failed, quotes the offending value and names the remedy. It never holds
a patient's name or identifier.
"""

import unicodedata

_UNPRINTABLE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's classes of line breaks, controls and halves of characters


class GcnnError(Exception):
    """An expected failure; `exit_code` is what the process returns.

    Its text quotes files, which may hold anything: what would break the line or command the terminal is
    shown by its number.
    """

    exit_code = 1

    def __str__(self) -> str:
        return "".join(repr(c)[1:-1] if unicodedata.category(c) in _UNPRINTABLE else c for c in super().__str__())


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
    """The weights are missing, altered or not understood."""

    exit_code = 6


class DeviceError(GcnnError):
    """The compute device is not there or ran out of memory."""

    exit_code = 7


class BatchError(GcnnError):
    """Some scans of a batch failed; the others were written."""

    exit_code = 8


class OutputError(GcnnError):
    """A result cannot be written: no permission, no space."""

    exit_code = 9
