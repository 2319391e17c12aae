"""Where results are written, and how: whole or not at all, never over something by accident."""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from gcnn_cli.errors import OutputError, UsageError

_PART = ".part"


def write_bytes(path: Path, content: bytes, *, overwrite: bool) -> None:
    """Write through a temporary name in the same folder. Raises UsageError if the file exists, OutputError."""
    write_together({path: content}, overwrite=overwrite)


def write_together(contents: Mapping[Path, bytes], *, overwrite: bool) -> None:
    """Write files that belong together, the last of which is their seal: where it stands, all are of one making.

    Everything is on disk under temporary names before the first file gets its own, and an old seal goes first.
    Raises UsageError if a file exists, OutputError.
    """
    check_not_existing(list(contents), overwrite=overwrite)
    path = seal = list(contents)[-1]
    parts = {path: path.with_name(f"{_part_of(path)}.{os.getpid()}{_PART}") for path in contents}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            parts[path].write_bytes(content)
        if len(contents) > 1:
            seal.unlink(missing_ok=True)
        for path, part in parts.items():
            part.replace(path)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", path=path) from None
    finally:
        for part in parts.values():
            with suppress(OSError):
                part.unlink(missing_ok=True)


def remove_parts(paths: Iterable[Path]) -> None:
    """Delete what killed processes left of these files under temporary names; for who alone writes them."""
    wanted = {path.with_name(_part_of(path)) for path in paths}
    for folder in {path.parent for path in wanted}:
        for part in folder.glob(f".*{_PART}"):
            if part.with_name(part.name.removesuffix(_PART).rpartition(".")[0]) in wanted:
                part.unlink(missing_ok=True)


def _part_of(path: Path) -> str:
    """Start of a file's temporary names; the process's number follows, as several may share a folder."""
    return f".{path.name}"


def check_not_existing(paths: list[Path], *, overwrite: bool) -> None:
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
