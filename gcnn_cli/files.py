"""Reading and writing of files: a result is whole or absent, and replaces nothing by accident."""

import csv
import errno
import io
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from gcnn_cli.errors import InputError, OutputError, UsageError

_PART = ".part"
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet takes a cell that starts with one for a formula


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise InputError where the block fails to read a file."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=error.filename or path) from None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise OutputError where the block fails to write a file or to make a folder."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", path=path) from None


def make_folder(path: Path) -> None:
    """Make a folder and its parents. Raises OutputError."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def check_writable(folder: Path) -> None:
    """Raise OutputError if nothing can be written to a folder, or to where it is to be made. Leaves no trace."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    with writing(folder), tempfile.TemporaryFile(dir=there):
        pass


def write_bytes(path: Path, content: bytes, *, overwrite: bool) -> None:
    """Write through a temporary name in the same folder. Raises UsageError if the file exists, OutputError."""
    write_together({path: content}, overwrite=overwrite)


def write_together(contents: Mapping[Path, bytes], *, overwrite: bool) -> None:
    """Write files that belong together. The last one is the seal: where it stands, all of them are from one run.

    All contents are on the disk under temporary names (fsync) before the first file gets its own name, and an
    earlier seal is removed first. Without `overwrite` a file that another process makes meanwhile is never replaced.
    Raises UsageError if a file exists, OutputError.
    """
    check_not_existing(list(contents), overwrite=overwrite)
    path = seal = list(contents)[-1]
    parts = {path: path.with_name(f"{_part_of(path)}.{os.getpid()}{_PART}") for path in contents}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with parts[path].open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if overwrite and len(contents) > 1:
            seal.unlink(missing_ok=True)
        for path, part in parts.items():
            _publish(part, path, overwrite=overwrite)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", path=path) from None
    finally:
        for part in parts.values():
            with suppress(OSError):
                part.unlink(missing_ok=True)


def _publish(part: Path, path: Path, *, overwrite: bool) -> None:
    """Give a temporary file its own name. Raises UsageError instead of replacing a file without `overwrite`."""
    if overwrite:
        part.replace(path)
        return
    try:
        try:
            os.link(part, path)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            path.open("xb").close()  # claims the name with an empty file, which is replaced at once
            part.replace(path)
    except FileExistsError:
        raise _exists(path) from None


def remove_parts(paths: Iterable[Path]) -> None:
    """Delete temporary files that killed processes left. The caller must be the only writer of these paths."""
    wanted = {path.with_name(_part_of(path)) for path in paths}
    for folder in {path.parent for path in wanted}:
        for part in folder.glob(f".*{_PART}"):
            if part.with_name(part.name.removesuffix(_PART).rpartition(".")[0]) in wanted:
                part.unlink(missing_ok=True)


def _part_of(path: Path) -> str:
    """Return the start of a file's temporary names. The process number follows, since processes may share a folder."""
    return f".{path.name}"


def check_not_existing(paths: list[Path], *, overwrite: bool) -> None:
    """Raise UsageError naming the first path that exists, unless `overwrite` is set."""
    if overwrite:
        return
    for path in paths:
        if path.exists():
            raise _exists(path)


def _exists(path: Path) -> UsageError:
    return UsageError(f"{path} exists already; give --overwrite, --resume or another --out")


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[object]], *, inert: bool = False) -> str:
    """Return a table with its header. Lines end in a line feed on every system.

    inert: put an apostrophe before text that a spreadsheet would run as a formula; numbers stay numbers. For tables
           that people open. Series ids in tables of nodules stay exact, as other tables refer to them.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(([_inert(cell) for cell in row] for row in rows) if inert else rows)
    return buffer.getvalue()


def _inert(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) and not _is_number(cell) else cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
