"""The output formats of a report, by name."""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from gcnn_cli.detection.findings import Report
from gcnn_cli.errors import UsageError
from gcnn_cli.files import check_not_existing, write_together
from gcnn_cli.output.csv_format import luna16_csv, rich_csv
from gcnn_cli.output.grand_challenge import grand_challenge_points
from gcnn_cli.output.json_format import report_json
from gcnn_cli.output.slicer import slicer_markups
from gcnn_cli.scan.folders import MASK_ENDING
from gcnn_cli.scan.images.image_file import stem_of, suffix_of
from gcnn_cli.scan.volume import Volume


@dataclass(frozen=True)
class Format:
    """One format. needs_scan: `render` uses the scan. needs_lungs: it also uses the report's lungs."""

    ending: str
    render: Callable[[Report, Volume | None], bytes]
    needs_scan: bool = False
    needs_lungs: bool = False


def _text(render: Callable[[Report], str]) -> Callable[[Report, Volume | None], bytes]:
    return lambda report, _: render(report).encode("utf-8")


def _html(report: Report, scan: Volume | None) -> bytes:
    from gcnn_cli.output.html import html_report  # loads jinja2 only for a page

    return html_report(report, _given(scan))


def _png(report: Report, scan: Volume | None) -> bytes:
    from gcnn_cli.output.pictures.montage import png_montage  # loads matplotlib only for a picture

    return png_montage(report, _given(scan))


def _sr(report: Report, scan: Volume | None) -> bytes:
    from gcnn_cli.output.sr import structured_report  # highdicom is an optional extra

    return structured_report(report, _given(scan))


def _mask(report: Report, scan: Volume | None) -> bytes:
    from gcnn_cli.output.mask import label_map  # loads scipy only for a mask

    return label_map(report, _given(scan))


def _seg(report: Report, scan: Volume | None) -> bytes:
    from gcnn_cli.output.seg import segmentation  # highdicom is an optional extra

    return segmentation(report, _given(scan)).content()


def _sr_of_segments(report: Report, scan: Volume | None) -> dict[str, bytes]:
    """Return the SEG and an SR that refers to its segments."""
    from gcnn_cli.output.seg import segmentation
    from gcnn_cli.output.sr import structured_report

    segments = segmentation(report, _given(scan))
    return {"seg": segments.content(), "sr": structured_report(report, _given(scan), segments)}


def _given(scan: Volume | None) -> Volume:
    if scan is None:
        raise UsageError("html, png, mask, seg and sr need the scan, and no scan was given")
    return scan


FORMATS = {
    "csv": Format(".nodules.csv", _text(rich_csv)),
    "json": Format(".nodules.json", _text(report_json)),
    "luna16": Format(".luna16.csv", _text(luna16_csv)),
    "html": Format(".nodules.html", _html, needs_scan=True, needs_lungs=True),
    "png": Format(".nodules.png", _png, needs_scan=True, needs_lungs=True),
    "slicer": Format(".nodules.mrk.json", _text(slicer_markups)),
    "grand-challenge": Format(".nodules.grand-challenge.json", _text(grand_challenge_points)),
    "mask": Format(MASK_ENDING, _mask, needs_scan=True, needs_lungs=True),
    "seg": Format(".nodules.seg.dcm", _seg, needs_scan=True, needs_lungs=True),
    "sr": Format(".nodules.sr.dcm", _sr, needs_scan=True),
}


_OF_A_STUDY = ("seg", "sr")  # objects that refer to the images of a DICOM series


def parse_formats(names: str) -> tuple[str, ...]:
    """Parse 'csv,json' into ('csv', 'json'). Raises UsageError for an unknown format, or none at all."""
    parsed = tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    for name in parsed:
        if name not in FORMATS:
            raise UsageError(f"unknown format {name!r}: choose from {', '.join(FORMATS)}")
    if not parsed:
        raise UsageError(f"no format given: choose from {', '.join(FORMATS)}")
    return parsed


def formats_from_scan(formats: tuple[str, ...]) -> tuple[str, ...]:
    """Return those of the formats that are rendered from the scan as well as from the report."""
    return tuple(name for name in formats if FORMATS[name].needs_scan)


def needs_lungs(formats: Iterable[str]) -> bool:
    """Return whether one of the formats shows the lungs."""
    return any(FORMATS[name].needs_lungs for name in formats)


def check_formats(formats: tuple[str, ...], scan: Path) -> None:
    """Raise UsageError for a format that is impossible for this scan or this installation."""
    for name in (name for name in _OF_A_STUDY if name in formats):
        if not scan.is_dir() and suffix_of(scan):
            raise UsageError(
                f"a DICOM {name.upper()} refers to a DICOM series, and this is an image file; leave out {name}",
                path=scan,
            )
        if find_spec("highdicom") is None:
            raise UsageError(f"{name} needs highdicom, which is not installed: install gcnn with its extra 'dicom'")


def output_name(scan: Path) -> str:
    """Return the name of a scan's results: that of its file or folder."""
    is_folder = os.path.isdir(scan)  # unlike Path.is_dir, False for a path that is too long; reading it reports that
    return stem_of(Path(scan.resolve().name)) if is_folder else stem_of(scan)


def output_paths(scan: Path, folder: Path, formats: tuple[str, ...]) -> dict[str, Path]:
    """Return the file of each format of a scan's report, named after the scan's file or folder."""
    return named_paths(output_name(scan), folder, formats)


def result_paths(result: Path, folder: Path, formats: tuple[str, ...]) -> dict[str, Path]:
    """Return the file of each format of a saved result, named like the result."""
    ending = FORMATS["json"].ending
    name = result.name.removesuffix(ending) if result.name.endswith(ending) else result.stem
    return named_paths(name, folder, formats)


def named_paths(name: str, folder: Path, formats: tuple[str, ...]) -> dict[str, Path]:
    """Return the file of each format. A name may include folders: `patient/series`."""
    return {fmt: folder / (name + FORMATS[fmt].ending) for fmt in formats}


def is_result(path: Path) -> bool:
    """Return whether a file has the name of an output file."""
    return path.name.endswith(tuple(fmt.ending for fmt in FORMATS.values()))


def render_report(report: Report, formats: Iterable[str], scan: Volume | None) -> dict[str, bytes]:
    """Return the content of each format's file. scan: the volume of the report; see `formats_from_scan`.

    Lungs come with the report from detection. A report without lungs gets them once, for all formats. Where both a SEG
    and an SR are asked for, the SR refers to the segments.
    """
    names = tuple(formats)
    if scan is not None and report.lungs is None and needs_lungs(names):
        from gcnn_cli.output.pictures.saved_lungs import with_lungs

        report = with_lungs(report, scan)
    linked = _sr_of_segments(report, scan) if {"seg", "sr"} <= set(names) else {}
    return {name: linked.get(name) or FORMATS[name].render(report, scan) for name in names}


def write_report(report: Report, paths: dict[str, Path], *, scan: Volume | None = None, overwrite: bool) -> None:
    """Write a report to every path of `output_paths`. An error in one format prevents all.

    scan: the volume of the report, for the formats of `formats_from_scan`
    """
    check_not_existing(list(paths.values()), overwrite=overwrite)
    write_rendered(render_report(report, paths, scan), paths, overwrite=overwrite)


def write_rendered(contents: Mapping[str, bytes], paths: Mapping[str, Path], *, overwrite: bool) -> None:
    """Write what `render_report` returned. The JSON comes last: for `--resume` it stands for the whole set."""
    names = sorted(contents, key=lambda fmt: fmt == "json")
    write_together({paths[fmt]: contents[fmt] for fmt in names}, overwrite=overwrite)
