"""`gcnn train`."""

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
    ProposalsOption,
    Quiet,
    StrictData,
    Threads,
    Verbose,
    app,
    console,
    start,
)
from gcnn_cli.cli.checks import check_device, check_folders, check_group, check_recipe, check_weights
from gcnn_cli.cli.stopping import stop_requests
from gcnn_cli.errors import UsageError
from gcnn_cli.network.weight_files import DEFAULT_PROPOSALS

if TYPE_CHECKING:
    import torch

    from gcnn_cli.training.comparison import Comparison
    from gcnn_cli.training.loop import Progress
    from gcnn_cli.training.run import RunConfig


@app.command(epilog=EXIT_CODES)
def train(
    data: Annotated[list[Path], typer.Option("--data", help="Folder of scans, annotations and cut-outs; repeatable.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Weights file to write (.safetensors).")],
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="TOML file of all settings, or the name of one of the article's networks, such as winkels2018-d4h;"
            " the options below override it.",
        ),
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="Go on from these weights, by shipped name or path, instead of starting anew.")
    ] = None,
    frozen: Annotated[
        int | None,
        typer.Option(min=0, help="With --init, leave this many of the first convolutions as they are (default: 0)."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what would be trained on, how long, with how much memory; write nothing."),
    ] = False,
    group: Annotated[str | None, typer.Option(help="Symmetry group; 'trivial' is the plain CNN (default: O).")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimization steps (default: 1200). With --init: 200 of each network.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the weights and batches (default: 0).")] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=2, help="Train on a balanced subset of this size; smaller subsets are nested (default: all)."),
    ] = None,
    hold_out: HoldOut = None,
    hold_out_share: Annotated[
        float | None, typer.Option(min=0, max=0.9, help="Share of the other patients to keep out (default: 0.2).")
    ] = None,
    split_seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the choice of held-out patients (default: 0).")
    ] = None,
    fold: Annotated[
        int | None, typer.Option(min=1, help="Fold to hold out, from 1; the recipe says how many there are.")
    ] = None,
    proposals: ProposalsOption = DEFAULT_PROPOSALS,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of preprocessed scans, shared by runs (default: OUT.run/cache).")
    ] = None,
    montage: Annotated[
        Path | None, typer.Option(help="Draw samples of every kind into this PNG; do not train.")
    ] = None,
    name_data: NameData = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write a TensorBoard log.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoint of an earlier run.")] = False,
    strict: StrictData = False,
    device: Device = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train weights on labeled scans, from the start or on from other weights.

    On several processes or GPUs: torchrun --nproc-per-node N -m gcnn_cli train ...
    """
    from gcnn_cli.training.run_files import check_run_files

    check_device(device)
    check_group(group, UsageError)
    check_recipe(config)
    check_folders(data)
    check_weights(proposals)
    check_run_files(out, overwrite=overwrite, resume=resume)

    from gcnn_cli.network.devices import choose_device
    from gcnn_cli.training.distributed import join_process_group, leave_process_group

    process = join_process_group(choose_device(device))
    errors = start(quiet or not process.is_main, verbose, threads)

    from gcnn_cli.files import check_not_existing
    from gcnn_cli.training.loop import Interrupted
    from gcnn_cli.training.parent import load_parent
    from gcnn_cli.training.recipe import read_recipe
    from gcnn_cli.training.run import RunConfig, run_training

    if frozen and init is None:
        raise UsageError("--frozen leaves layers of other weights as they are: name these with --init")
    parent = load_parent(init) if init else None
    recipe = read_recipe(
        config,
        {
            "network": {"group": group},
            "train": {"steps": steps, "seed": seed},
            "samples": {"subset": samples},
            "split": {
                "hold_out": tuple(hold_out) if hold_out else None,
                "share": hold_out_share,
                "seed": split_seed,
                "fold": fold,
            },
            "init": {"frozen": frozen},
        },
        parent,
    )
    run = RunConfig(
        data=tuple(data),
        out=out,
        recipe=recipe,
        cache=cache,
        montage=montage,
        tensorboard=tensorboard,
        overwrite=overwrite,
        resume=resume,
        strict=strict,
        name_data=name_data,
        proposals=proposals,
        parent=parent,
    )
    if dry_run:
        _show_plan(run, process.device)
        leave_process_group()
        return
    if montage:
        check_not_existing([montage], overwrite=overwrite)
    started = time.monotonic()
    steps_in_all = recipe.train.steps * run.networks
    begun: list[tuple[int, float]] = []
    compared: list[Comparison | None] = []
    with errors.status("reading and preprocessing scans") as status, stop_requests() as signal_number:

        def watch(line: "Progress") -> None:
            # By the clock and not by the rate of patches, so that validations count, as they will again.
            now = time.monotonic()
            if not begun:
                begun.append((line.step, now))
            first, since = begun[0]
            done = line.step - first
            left = f"{(now - since) / done * (steps_in_all - line.step) / 60:.0f}" if done else "?"
            status.update(
                f"step {line.step}/{steps_in_all}  loss {line.loss:.3f}  {line.patches_per_s:.1f} patches/s"
                f"  about {left} min left, {(now - started) / 60:.0f} min elapsed"
            )

        try:
            run_training(
                run,
                watch=watch,
                should_stop=lambda: bool(signal_number()),
                process=process,
                compared=compared.append,
            )
            process.barrier()
        except Interrupted:
            if process.is_main:
                typer.echo(f"stopped; rerun with --resume to continue from {run.checkpoint_path}", err=True)
            raise typer.Exit(128 + (signal_number() or signal.SIGTERM)) from None
        finally:
            leave_process_group()
    for comparison in compared:  # of new weights and their parent
        _show_comparison(comparison)


def _show_plan(run: "RunConfig", device: "torch.device") -> None:
    """Print what a run would do."""
    from gcnn_cli.output.listing import show_rows
    from gcnn_cli.training.planning import plan_run

    plan = plan_run(list(run.data), run.recipe, device, run.parent, strict=run.strict, proposals=run.proposals)
    show_rows(plan.rows(), console(stderr=False))
    for line in plan.lines():
        typer.echo(line)


def _show_comparison(comparison: "Comparison | None") -> None:
    """Print the table of the new weights and their parent, and which of them to use."""
    from gcnn_cli.output.listing import show_rows

    if comparison is None:
        typer.echo("No nodules and candidates were held out: nothing says whether the new weights are better.")
        return
    show_rows(comparison.rows(), console(stderr=False))
    typer.echo(comparison.verdict())
