"""What lies below a folder, as far as it is anybody's data."""

import re
from pathlib import Path

from gcnn_cli.scan.images.image_file import SUFFIXES

_SUBSET = re.compile(r"subset\d+")


def visible_files(folder: Path) -> list[Path]:
    """Every file at any depth, by path. Hidden ones and those in hidden folders are others' (snapshots, thumbnails)."""
    below = (path for path in folder.rglob("*") if not _is_hidden(path.relative_to(folder)))
    return sorted(path for path in below if path.is_file())


def image_files(folder: Path) -> list[Path]:
    """The files that are scans by their names, by path: in LUNA16's layout, those in its subsets alone."""
    files = [path for path in visible_files(folder) if path.name.lower().endswith(SUFFIXES)]
    return [path for path in files if path.suffix == ".mhd" and is_subset(path.parent)] or files


def is_subset(folder: Path) -> bool:
    """By the name it is called or, given as `.` or through a link, the name it has."""
    return any(_SUBSET.fullmatch(name) for name in (folder.name, folder.resolve().name))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
