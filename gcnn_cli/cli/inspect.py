"""`gcnn info`, `gcnn models` and `gcnn verify`: inspection of scans, weights and symmetry."""

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from gcnn_cli.cli.app import EXIT_CODES, AllowGaps, AsJson, Overwrite, app, console, echo_json
from gcnn_cli.cli.checks import check_group, check_weights
from gcnn_cli.errors import ModelError, UsageError
from gcnn_cli.network.weight_files import DEFAULT_MODEL


@app.command(epilog=EXIT_CODES)
def info(
    scan: Annotated[
        Path | None,
        typer.Argument(
            help="DICOM folder, .mhd, .mha, .nii, .nii.gz, .hdr or .nrrd; a zip or tar of one.", show_default=False
        ),
    ] = None,
    system: Annotated[
        bool, typer.Option("--system", help="Show versions, devices and threads instead of a scan.")
    ] = False,
    allow_gaps: AllowGaps = False,
    as_json: AsJson = False,
) -> None:
    """Show the contents of a path and check its geometry. Needs no weights."""
    if (scan is None) != system:
        raise UsageError("info takes either a scan or --system")
    if scan is None:
        from gcnn_cli.network.system import describe_system

        _show(describe_system(), as_json)
    else:
        from gcnn_cli.scan.info import describe_scan

        _show(describe_scan(scan, allow_gaps=allow_gaps), as_json)


@app.command(epilog=EXIT_CODES)
def models(as_json: AsJson = False) -> None:
    """List the shipped weights and check them against their checksums."""
    from gcnn_cli.network.shipped import list_models

    rows = list_models()
    if not as_json:  # narrow rows: sha256 alone fills most of a terminal
        rows = [
            {
                "name": row["name"],
                "group": row["group"],
                "members": row["members"],
                "parameters": f"{row['parameters']:,}",
                "size": f"{row['bytes'] / 1e6:.1f} MB",
                "measured": row["measured"],
                "measured on": row["measured_on"],
                "sha256": row["sha256"],
                "card": Path(row["card"]).name,
            }
            for row in rows
        ]
    _show(rows, as_json)


@app.command(epilog=EXIT_CODES)
def verify(
    model: Annotated[str, typer.Argument(help="Name of shipped weights, or path of a weights file.")] = DEFAULT_MODEL,
    group: Annotated[
        str | None,
        typer.Option(help="Group whose elements turn the patches (default: the network's own).", show_default=False),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Also plot the error of each element to this PNG.", show_default=False)
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Measure the change of the score, or of a proposal network's map, when a patch is turned by each element.

    Weights that are configured to share their kernels over a group, and not to be invariant, fail with that reason.
    """
    from gcnn_cli.files import check_not_existing, write_bytes

    check_weights(model)
    check_group(group)
    if plot is not None:
        check_not_existing([plot], overwrite=overwrite)

    from gcnn_cli.network.verify import TOLERANCE, verify_weights

    measured = verify_weights(model, group)
    errors = measured.deviations
    if as_json:
        typer.echo(json.dumps([{"element": e.element, "matrix": e.matrix, "error": e.error} for e in errors]))
    else:
        _show(
            [
                {
                    "element": e.element,
                    "matrix (z, y, x)": _matrix(e.matrix),
                    "error": "turns to another shape" if e.error is None else f"{e.error:.1e}",
                }
                for e in errors
            ]
        )
    if plot is not None:
        from gcnn_cli.output.pictures.symmetry_plot import error_plot

        title = f"{Path(model).stem}, group {measured.group}"
        write_bytes(
            plot,
            error_plot([math.nan if e.error is None else e.error for e in errors], TOLERANCE, title),
            overwrite=overwrite,
        )
    law = f"{measured.law} under {measured.group}"
    worst = max(e.error for e in errors if e.error is not None)  # that of the identity at least
    if group is None and measured.limits:
        raise ModelError(
            f"{model}: {measured.limits}; the largest relative change of the score is {worst:.1e}"
            " over the elements that turn a patch into one of its own shape"
        )
    if any(e.error is None for e in errors):
        raise ModelError(f"{model}: not {law}, which turns its patches into another shape")
    change = f"the largest relative change is {worst:.1e}; at most {TOLERANCE:g} is allowed"
    if worst > TOLERANCE:
        raise ModelError(f"{model}: not {law}: {change}")
    typer.echo(f"{law}: {change}", err=True)


def _show(rows: list[dict[str, Any]], as_json: bool = False) -> None:
    from gcnn_cli.output.listing import show_rows

    if as_json:
        echo_json(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
    else:
        show_rows(rows, console(stderr=False))


def _matrix(matrix: tuple[tuple[int, ...], ...]) -> str:
    return " ".join("[" + " ".join(f"{value:2d}" for value in row) + "]" for row in matrix)
