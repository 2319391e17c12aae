"""`gcnn train`."""

from pathlib import Path
from typing import Annotated

import typer

from gcnn_cli.cli.app import EXIT_CODES, Overwrite, Quiet, Threads, Verbose, app, start


@app.command(epilog=EXIT_CODES)
def train(
    data: Annotated[
        list[Path], typer.Option("--data", help="Folder of scans, annotations and cut-outs; may be repeated.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Weights file to write (.safetensors).")],
    group: Annotated[str, typer.Option(help="Symmetry group; 'trivial' trains the plain CNN.")] = "O",
    steps: Annotated[int, typer.Option(min=1, help="Optimization steps.")] = 1100,
    seed: Annotated[int, typer.Option(min=0, help="Of the weights and of every batch.")] = 0,
    hold_out: Annotated[
        list[str] | None, typer.Option("--hold-out", help="Patient kept out of training; may be repeated.")
    ] = None,
    hold_out_share: Annotated[float, typer.Option(min=0, max=0.9, help="Share of the other patients kept out.")] = 0.2,
    split_seed: Annotated[int, typer.Option(min=0, help="Of the choice of held-out patients.")] = 0,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse data with missing, unreadable or doubtful scans and labels.")
    ] = False,
    threads: Threads = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train weights from labelled scans."""
    start(quiet, verbose, threads)

    from gcnn_cli.training.run import RunConfig, run_training

    run_training(
        RunConfig(
            data=tuple(data),
            out=out,
            group=group,
            steps=steps,
            seed=seed,
            hold_out=tuple(hold_out or ()),
            hold_out_share=hold_out_share,
            split_seed=split_seed,
            overwrite=overwrite,
            strict=strict,
        )
    )
