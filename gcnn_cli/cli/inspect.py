"""`gcnn info`, `gcnn models`, `gcnn verify`: what is at hand and whether it can be trusted."""

import json
from pathlib import Path
from typing import Annotated

import typer

from gcnn_cli.cli.app import EXIT_CODES, AsJson, app, console


@app.command(epilog=EXIT_CODES)
def info(
    scan: Annotated[Path, typer.Argument(help="DICOM folder or zip, .mhd, .mha, .nii, .nii.gz or .nrrd.")],
    as_json: AsJson = False,
) -> None:
    """Say what a path holds and whether its geometry can be trusted. Needs no weights."""
    from gcnn_cli.output.listing import show_rows
    from gcnn_cli.scan.summary import summarize

    rows = summarize(scan)
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        show_rows(rows, console(stderr=False))


@app.command(epilog=EXIT_CODES)
def models(as_json: AsJson = False) -> None:
    """List the weights at hand, checked against their checksums."""
    from gcnn_cli.network.weights import list_models
    from gcnn_cli.output.listing import show_rows

    rows = list_models()
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        show_rows(rows, console(stderr=False))


@app.command(epilog=EXIT_CODES)
def verify(
    model: Annotated[str, typer.Argument(help="Shipped name or path of a weights file.")] = "octahedral",
    group: Annotated[
        str | None, typer.Option(help="Turn by the elements of this group instead of the network's own.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how far the score changes when a patch is turned, for every element of the group."""
    from gcnn_cli.errors import ModelError
    from gcnn_cli.network.verify import TOLERANCE, invariance_errors
    from gcnn_cli.network.weights import load_model
    from gcnn_cli.output.listing import show_rows

    errors = invariance_errors(load_model(model).network, group=group)
    rows = [{"element": e.element, "matrix (z, y, x)": _matrix(e.matrix), "error": f"{e.error:.1e}"} for e in errors]
    if as_json:
        typer.echo(json.dumps([{"element": e.element, "matrix": e.matrix, "error": e.error} for e in errors]))
    else:
        show_rows(rows, console(stderr=False))
    worst = max(e.error for e in errors)
    if worst > TOLERANCE:
        raise ModelError(
            f"{model}: the score changes by {worst:.1e} (relative), more than {TOLERANCE:g}: not invariant"
        )
    typer.echo(f"largest relative change {worst:.1e}, at most {TOLERANCE:g} is allowed: invariant", err=True)


def _matrix(matrix: tuple[tuple[int, ...], ...]) -> str:
    return " ".join("[" + " ".join(f"{value:2d}" for value in row) + "]" for row in matrix)
