"""`gcnn train-proposals`."""

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gcnn_cli.cli.app import (
    EXIT_CODES,
    Device,
    HoldOut,
    NameData,
    Overwrite,
    Quiet,
    StrictData,
    Threads,
    Verbose,
    app,
    start,
)
from gcnn_cli.cli.checks import check_device, check_folders, check_group
from gcnn_cli.cli.stopping import stop_requests

if TYPE_CHECKING:
    from gcnn_cli.proposals.training_loop import ProposalProgress


@app.command("train-proposals", epilog=EXIT_CODES)
def train_proposals(
    data: Annotated[list[Path], typer.Option("--data", help="Folder of scans, annotations and cut-outs; repeatable.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Weights file to write (.safetensors).")],
    group: Annotated[str, typer.Option(help="Symmetry group; 'trivial' is the plain CNN.")] = "O",
    spacing: Annotated[float, typer.Option(min=0.2, max=5, help="Voxel spacing of the grid in mm.")] = 1.0,
    steps: Annotated[int, typer.Option(min=1, help="Optimization steps.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the weights and batches.")] = 0,
    hold_out: HoldOut = None,
    hold_out_share: Annotated[
        float,
        typer.Option(min=0, max=0.9, help="Share of the other patients to hold out; the same patients as gcnn train."),
    ] = 0.2,
    split_seed: Annotated[int, typer.Option(min=0, help="Seed of the choice of held-out patients.")] = 0,
    fold: Annotated[int, typer.Option(min=0, help="Fold to hold out, from 1; 0: no folds.")] = 0,
    folds: Annotated[int, typer.Option(min=0, help="Number of folds, by patient; needs --fold.")] = 0,
    name_data: NameData = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint of an earlier run.")] = False,
    strict: StrictData = False,
    device: Device = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train the network that proposes candidates."""
    from gcnn_cli.training.run_files import check_run_files

    check_group(group)
    check_device(device)
    check_folders(data)
    check_run_files(out, overwrite=overwrite, resume=resume)
    errors = start(quiet, verbose, threads)

    from gcnn_cli.network.contract import InputSpec
    from gcnn_cli.network.devices import choose_device
    from gcnn_cli.network.proposals import ProposalNetworkConfig
    from gcnn_cli.proposals.training_loop import ProposalTrainConfig
    from gcnn_cli.proposals.training_run import ProposalRunConfig, run_proposal_training
    from gcnn_cli.samples.split import SplitConfig
    from gcnn_cli.training.loop import Interrupted

    chosen = choose_device(device)
    recipe = ProposalTrainConfig(
        ProposalNetworkConfig(group=group), InputSpec(spacing_mm=spacing, side=48), steps=steps, seed=seed
    )
    split = SplitConfig(tuple(hold_out or ()), hold_out_share, split_seed, folds, fold)
    run = ProposalRunConfig(tuple(data), out, recipe, split, name_data, overwrite, resume, strict)
    started = time.monotonic()
    with errors.status("reading the scans") as status, stop_requests() as signal_number:

        def watch(line: "ProposalProgress") -> None:
            status.update(
                f"step {line.step}/{steps}  losses {line.nodule_loss:.3f} and {line.other_loss:.3f}"
                f"  about {(steps - line.step) * line.seconds / 60:.0f} min left,"
                f" {(time.monotonic() - started) / 60:.0f} min elapsed"
            )

        try:
            run_proposal_training(run, watch=watch, should_stop=lambda: bool(signal_number()), device=chosen)
        except Interrupted:
            typer.echo(f"stopped; rerun with --resume to continue from {run.checkpoint_path}", err=True)
            raise typer.Exit(128 + (signal_number() or signal.SIGTERM)) from None
