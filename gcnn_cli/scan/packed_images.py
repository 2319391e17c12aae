"""The images in an unpacked archive, and the choice of one."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from gcnn_cli.errors import InputError, SeriesChoiceError
from gcnn_cli.scan.folders import select_images, visible_files
from gcnn_cli.scan.images.image_file import read_image, stem_of
from gcnn_cli.scan.volume import Volume


def packed_images(path: Path, folder: Path) -> list[Path]:
    """Return the images of an archive that was unpacked into a folder; none where the path is itself a folder."""
    return [] if path.is_dir() or folder == path.parent else select_images(visible_files(folder))


def read_packed(path: Path, images: Sequence[Path], choice: str | None) -> Volume:
    """Read one image of an archive. Its source is the archive.

    choice: the image's name without its suffix, or '#N' (default: the only one)

    Raises SeriesChoiceError where there are several and none is chosen, InputError where there is no such image.
    """
    chosen = [p for n, p in enumerate(images, start=1) if choice in (None, stem_of(p), f"#{n}")]
    if not chosen:
        raise InputError(f"no image {choice}; there are {len(images)} (see `gcnn info`)", path=path)
    if len(chosen) > 1:
        raise SeriesChoiceError(
            f"{len(chosen)} images found; choose one with --series NAME or --series '#N' (see `gcnn info`),"
            " or unpack it and give the folder",
            path=path,
        )
    volume = read_image(chosen[0])
    return replace(volume, source=replace(volume.source, path=str(path)))
