"""`gcnn combine`."""

from pathlib import Path
from typing import Annotated

import typer

from gcnn_cli.cli.app import EXIT_CODES, Overwrite, Quiet, Threads, Verbose, app, start


@app.command(epilog=EXIT_CODES)
def combine(
    folds: Annotated[list[Path], typer.Argument(help="Weights of `gcnn train --fold`, one file for each fold.")],
    data: Annotated[list[Path], typer.Option("--data", help="Folder that they were trained on; may be repeated.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Weights file of the committee to write (.safetensors).")],
    average_over: Annotated[
        str, typer.Option(help="Mean score over the patch turned by this group's elements, in detection too.")
    ] = "Oh",
    cache: Annotated[Path | None, typer.Option(help="Folder that `gcnn train --cache` wrote, to save time.")] = None,
    device: Annotated[str, typer.Option(envvar="GCNN_DEVICE", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make one weights file of the networks of all folds, calibrated on what each had held out."""
    errors = start(quiet, verbose, threads)

    from gcnn_cli.errors import UsageError
    from gcnn_cli.files import check_not_existing
    from gcnn_cli.network.devices import choose_device
    from gcnn_cli.network.weights import SUFFIX, save_model
    from gcnn_cli.training.combine import combine_folds, read_fold
    from gcnn_cli.training.provenance import run_folder, write_names

    if out.suffix != SUFFIX:
        raise UsageError(f"{out}: a weights file ends in {SUFFIX}")
    check_not_existing([out], overwrite=overwrite)
    members = [read_fold(path) for path in folds]
    with errors.status("") as status:
        committee, names = combine_folds(
            members,
            list(data),
            out.stem,
            average_over=average_over,
            device=choose_device(device),
            cache=cache,
            notify=status.update,
        )
    sha256 = save_model(committee, out, overwrite=overwrite)
    write_names(names, run_folder(out), sha256)
    if not quiet:
        typer.echo(f"{out}: {len(members)} networks, sha256 {sha256}", err=True)
