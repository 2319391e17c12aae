"""What lies below a folder, as far as it is anybody's data."""

from pathlib import Path


def visible_files(folder: Path) -> list[Path]:
    """Every file at any depth, by path. Hidden ones and those in hidden folders are others' (snapshots, thumbnails)."""
    below = (path for path in folder.rglob("*") if not _is_hidden(path.relative_to(folder)))
    return sorted(path for path in below if path.is_file())


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
