"""`gcnn convert`: a saved result in other formats, without the network."""

from pathlib import Path
from typing import Annotated

import typer

from gcnn_cli.cli.app import EXIT_CODES, Overwrite, app
from gcnn_cli.errors import UsageError


@app.command(epilog=EXIT_CODES)
def convert(
    result: Annotated[Path, typer.Argument(metavar="RESULT.json", help="A .nodules.json of gcnn detect.")],
    formats: Annotated[str, typer.Option("--format", "-f", help="Comma list, as for gcnn detect.", show_default=False)],
    scan: Annotated[
        Path | None, typer.Option(help="The scan that was searched: html, png and sr are made from it too.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the files.")] = Path("."),
    overwrite: Overwrite = False,
) -> None:
    """Write a saved result in other formats. Needs no weights and no GPU."""
    from gcnn_cli.output.formats import check_formats, need_scan, parse_formats, result_paths, write_report

    requested = parse_formats(formats)
    wanting = need_scan(requested)
    if scan is not None:
        check_formats(requested, scan)

    from gcnn_cli.files import check_not_existing
    from gcnn_cli.output.json_reading import read_report, read_same_scan

    report = read_report(result)
    if wanting and scan is None:
        raise UsageError(
            f"{' and '.join(wanting)}: made from the scan too; give it with --scan"
            f" (it was read from {report.scan.source.path})"
        )
    paths = result_paths(result, out, requested)
    check_not_existing(list(paths.values()), overwrite=overwrite)
    volume = None
    if wanting and scan is not None:
        report, volume = read_same_scan(report, scan)
    write_report(report, paths, scan=volume, overwrite=overwrite)
    for path in paths.values():
        typer.echo(str(path))
