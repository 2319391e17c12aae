"""Where results are written, and how: whole or not at all, never over something by accident."""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from gcnn_cli.errors import OutputError, UsageError


def write_bytes(path: Path, content: bytes, *, overwrite: bool) -> None:
    """Write through a temporary name in the same folder. Raises UsageError if the file exists, OutputError."""
    refuse_existing([path], overwrite=overwrite)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")  # several processes may share a folder
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from None


def refuse_existing(paths: list[Path], *, overwrite: bool) -> None:
    """Raise UsageError naming the first path that exists, unless overwriting was asked for."""
    if overwrite:
        return
    for path in paths:
        if path.exists():
            raise UsageError(f"{path} exists already; give --overwrite, --resume or another --out")


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with its header, lines ending in a line feed on every system."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return buffer.getvalue()
