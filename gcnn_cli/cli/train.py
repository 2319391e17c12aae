"""`gcnn train`."""

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gcnn_cli.cli.app import EXIT_CODES, Overwrite, Quiet, Threads, Verbose, app, start
from gcnn_cli.cli.stopping import wish_to_stop

if TYPE_CHECKING:
    from gcnn_cli.training.loop import Progress


@app.command(epilog=EXIT_CODES)
def train(
    data: Annotated[
        list[Path], typer.Option("--data", help="Folder of scans, annotations and cut-outs; may be repeated.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Weights file to write (.safetensors).")],
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file of every choice; the options below come before it.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="Symmetry group, O if not told; 'trivial': the plain CNN.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimization steps; 1200 if not told.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the weights and of every batch; 0 if not told.")] = None,
    samples: Annotated[
        int | None, typer.Option(min=2, help="Train on this many samples, half nodules; smaller ones are parts.")
    ] = None,
    hold_out: Annotated[
        list[str] | None, typer.Option("--hold-out", help="Patient kept out of training; may be repeated.")
    ] = None,
    hold_out_share: Annotated[
        float | None, typer.Option(min=0, max=0.9, help="Share of the other patients kept out; 0.2 if not told.")
    ] = None,
    split_seed: Annotated[
        int | None, typer.Option(min=0, help="Of the choice of held-out patients; 0 if not told.")
    ] = None,
    fold: Annotated[int | None, typer.Option(min=1, help="Which of the folds of [split] is held out, from 1.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of searched scans, to share between runs; beside --out if not told.")
    ] = None,
    montage: Annotated[
        Path | None, typer.Option(help="Draw samples of every kind into this PNG to look at them, and do not train.")
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard's log too.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint of an earlier run.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse data with missing, unreadable or doubtful scans and labels.")
    ] = False,
    device: Annotated[str, typer.Option(envvar="GCNN_DEVICE", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    threads: Threads = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train weights from labelled scans.

    With several processes or GPUs: torchrun --nproc-per-node N -m gcnn_cli train ...
    """
    from gcnn_cli.network.devices import choose_device
    from gcnn_cli.training.distributed import join_team, leave_team

    team = join_team(choose_device(device))
    errors = start(quiet or not team.leads, verbose, threads)

    from gcnn_cli.files import check_not_existing
    from gcnn_cli.training.loop import Interrupted
    from gcnn_cli.training.recipe import read_recipe
    from gcnn_cli.training.run import RunConfig, run_training

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
        },
    )
    run = RunConfig(tuple(data), out, recipe, cache, montage, tensorboard, overwrite, resume, strict)
    if montage:
        check_not_existing([montage], overwrite=overwrite)
    started = time.monotonic()
    with errors.status("reading and searching the scans") as status, wish_to_stop() as wish:

        def watch(line: "Progress") -> None:
            left = (recipe.train.steps - line.step) * recipe.train.batch_size / max(line.patches_per_s, 1e-9)
            status.update(
                f"step {line.step}/{recipe.train.steps}  loss {line.loss:.3f}  {line.patches_per_s:.1f} patches/s"
                f"  about {left / 60:.0f} min left, {(time.monotonic() - started) / 60:.0f} min so far"
            )

        try:
            run_training(run, watch=watch, should_stop=lambda: bool(wish()), team=team)
            team.meet()
        except Interrupted:
            if team.leads:
                typer.echo(f"stopped; the same command with --resume goes on from {run.checkpoint_path}", err=True)
            raise typer.Exit(128 + (wish() or signal.SIGTERM)) from None
        finally:
            leave_team()
