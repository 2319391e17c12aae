"""`gcnn export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from gcnn_cli.cli.app import EXIT_CODES, Overwrite, app
from gcnn_cli.cli.checks import check_weights
from gcnn_cli.network.weight_files import DEFAULT_MODEL


@app.command(epilog=EXIT_CODES)
def export(
    model: Annotated[str, typer.Argument(help="Name of shipped weights, or path of a weights file.")] = DEFAULT_MODEL,
    form: Annotated[
        Literal["onnx", "torchscript"], typer.Option("--format", help="ONNX needs the package's extra 'export'.")
    ] = "onnx",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write (default: the model's name, .onnx or .pt).")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a network for other engines: patches in, logits and calibrated probabilities out.

    The file's metadata, `gcnn`, state the input that the network takes and what its output means.
    """
    from gcnn_cli.files import check_not_existing

    check_weights(model)
    check_not_existing([out] if out else [], overwrite=overwrite)

    from gcnn_cli.network.export import SUFFIXES, export_model
    from gcnn_cli.network.weights import load_model

    trained = load_model(model)
    path = out or Path(f"{trained.name}{SUFFIXES[form]}")
    export_model(trained, path, form, overwrite=overwrite)
    typer.echo(str(path))
