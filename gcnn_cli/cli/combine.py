"""`gcnn combine`."""

from pathlib import Path
from typing import Annotated

import typer

from gcnn_cli.cli.app import (
    EXIT_CODES,
    Device,
    Overwrite,
    ProposalsOption,
    Quiet,
    Threads,
    Verbose,
    app,
    shown_in,
    start,
)
from gcnn_cli.cli.checks import check_device, check_folders, check_group, check_weights
from gcnn_cli.errors import UsageError
from gcnn_cli.network.weight_files import DEFAULT_PROPOSALS


@app.command(epilog=EXIT_CODES)
def combine(
    folds: Annotated[list[Path], typer.Argument(help="Weights files from `gcnn train --fold`, one for each fold.")],
    data: Annotated[list[Path], typer.Option("--data", help="Folder that they were trained on; repeatable.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Weights file of the committee to write (.safetensors).")],
    average_over: Annotated[
        str,
        typer.Option(
            help="Test-time group pooling, stored for detection too: average the score over the patch as moved by every"
            " element of this group."
        ),
    ] = "Oh",
    other: Annotated[
        str | None,
        typer.Option(
            "--with",
            help="A network of another recipe and the same shape that joins them: name of shipped weights, or path of"
            " a weights file.",
        ),
    ] = None,
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Part of the network of --with in the mean.")] = 0.5,
    proposals: ProposalsOption = DEFAULT_PROPOSALS,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of preprocessed scans, as for gcnn train; it saves time.")
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Combine the networks of all folds into one weights file, calibrated on the patients that each held out."""
    from gcnn_cli.files import check_not_existing
    from gcnn_cli.network.weight_files import SUFFIX

    if out.suffix != SUFFIX:
        raise UsageError(f"{out}: the name of a weights file must end in {SUFFIX}")
    check_not_existing([out], overwrite=overwrite)
    check_device(device)
    check_group(average_over)
    for fold in folds:
        check_weights(str(fold))
    if other is not None:
        check_weights(other)
    check_folders(data)
    check_weights(proposals)
    errors = start(quiet, verbose, threads)

    from gcnn_cli.network.devices import choose_device
    from gcnn_cli.network.weights import save_model
    from gcnn_cli.training.combine import combine_folds, read_fold, read_other
    from gcnn_cli.training.provenance import write_names
    from gcnn_cli.training.run_files import run_folder

    members = [read_fold(path) for path in folds]
    joining = None if other is None else read_other(other, share)
    with errors.status("") as status:
        committee, names = combine_folds(
            members,
            list(data),
            out.stem,
            average_over=average_over,
            other=joining,
            proposals=proposals,
            device=choose_device(device),
            cache=cache,
            notify=shown_in(status),
        )
    sha256 = save_model(committee, out, overwrite=overwrite)
    write_names(names, run_folder(out), sha256)
    if not quiet:
        typer.echo(f"{out}: {len(members) + (joining is not None)} networks, sha256 {sha256}", err=True)
