"""`gcnn convert`: write a saved result in other formats."""

from pathlib import Path
from typing import Annotated

import typer

from gcnn_cli.cli.app import EXIT_CODES, Overwrite, app
from gcnn_cli.cli.checks import check_files
from gcnn_cli.errors import UsageError


@app.command(epilog=EXIT_CODES)
def convert(
    result: Annotated[Path, typer.Argument(metavar="RESULT.json", help="A .nodules.json written by gcnn detect.")],
    formats: Annotated[
        str, typer.Option("--format", "-f", help="Comma-separated, as for gcnn detect.", show_default=False)
    ],
    scan: Annotated[
        Path | None, typer.Option(help="The scan of the result; html, png, mask, seg and sr need it.")
    ] = None,
    lung_mask: Annotated[
        Path | None,
        typer.Option(help="The lung mask of the result; html, png, mask and seg need it if it was made with one."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")] = Path("."),
    overwrite: Overwrite = False,
) -> None:
    """Write a saved result in other formats. Needs no weights and no GPU."""
    from gcnn_cli.output.formats import (
        check_formats,
        formats_from_scan,
        needs_lungs,
        parse_formats,
        result_paths,
        write_report,
    )

    requested = parse_formats(formats)
    from_scan = formats_from_scan(requested)
    if scan is not None:
        check_formats(requested, scan)

    check_files([scan, lung_mask])

    from gcnn_cli.files import check_not_existing
    from gcnn_cli.output.json_reading import read_report, read_same_scan

    report = read_report(result)
    if lung_mask is not None and not needs_lungs(requested):
        raise UsageError("--lung-mask is for html, png, mask and seg; none of them is requested")
    if from_scan and scan is None:
        raise UsageError(
            f"{' and '.join(from_scan)}: the scan is needed; give it with --scan"
            f" (it was read from {report.scan.source.path})"
        )
    paths = result_paths(result, out, requested)
    check_not_existing(list(paths.values()), overwrite=overwrite)
    volume = None
    if from_scan and scan is not None:
        report, volume = read_same_scan(report, scan)
        if needs_lungs(requested):
            from gcnn_cli.output.pictures.saved_lungs import with_lungs  # loads torch

            report = with_lungs(report, volume, lung_mask)
    write_report(report, paths, scan=volume, overwrite=overwrite)
    for path in paths.values():
        typer.echo(str(path))
