"""MetaImages whose voxels lie in several files: a list of names after the header, or a numbered pattern.

Source: the MetaIO documentation, "Spreading data over multiple files"; its reader, for what a pattern's numbers mean.
"""

import math
import re
from pathlib import Path

from gcnn_cli.errors import InputError

_PATTERN = re.compile(r"(?P<before>[^%]*)%(?P<zeros>0?)(?P<width>\d?)[diu](?P<after>[^%]*)")
_LONGEST_NAME = 4096
_MOST_FILES = 100_000


def part_files(path: Path, element_data_file: str, header_bytes: int, size: tuple[int, ...]) -> tuple[Path, ...]:
    """Return the files of the voxels in order, all of them present.

    element_data_file: `LIST`, `LIST 2`, or `slice%03d.raw` with a first and last number and a step
    header_bytes:      where the names of a list begin

    Raises InputError for another number of files than the image needs, or for one that is missing.
    """
    name, *words = element_data_file.split()
    try:
        numbers = [int(float(word.upper().rstrip("D"))) for word in words]
    except (ValueError, OverflowError):
        raise InputError(f"its ElementDataFile is {element_data_file[:60]!r}", path=path) from None
    axes = numbers[0] if name == "LIST" and numbers and 0 < numbers[0] <= len(size) else len(size) - 1
    count = math.prod(size[axes:])
    if count > _MOST_FILES:
        raise InputError(f"needs {count} data files: more than a scan has slices", path=path)
    names = _listed(path, header_bytes, count) if name == "LIST" else _numbered(path, name, numbers, count)
    parts = tuple(path.parent / part for part in names)
    for part in parts:
        if not part.is_file():
            raise InputError(f"its data file {part.name!r} is missing", path=path)
    return parts


def _listed(path: Path, start: int, count: int) -> list[str]:
    with path.open("rb") as file:
        file.seek(start)
        lines = [file.readline(_LONGEST_NAME) for _ in range(count)]
    names = [line.decode("utf-8", "replace").strip() for line in lines]
    names = [name for name in names if name]
    if len(names) != count:
        raise InputError(f"lists {len(names)} data files where its size needs {count}", path=path)
    return names


def _numbered(path: Path, pattern: str, numbers: list[int], count: int) -> list[str]:
    """Return the names of a pattern. As in MetaIO, its numbers run from 1 by 1 unless it states others."""
    match = _PATTERN.fullmatch(pattern)
    if match is None or len(numbers) > 3:
        raise InputError(f"its ElementDataFile is {pattern[:60]!r}, a pattern that is not understood", path=path)
    first = numbers[0] if numbers else 1
    last = numbers[1] if len(numbers) > 1 else first + count - 1
    step = numbers[2] if len(numbers) > 2 else max(1, (last - first) // max(1, count - 1))
    if step < 1 or (last - first) // step + 1 != count:
        raise InputError(f"numbers its data files {first} to {last} by {step} where its size needs {count}", path=path)
    width, fill = int(match["width"] or 0), "0" if match["zeros"] else " "
    return [f"{match['before']}{str(n).rjust(width, fill)}{match['after']}" for n in range(first, last + 1, step)]
