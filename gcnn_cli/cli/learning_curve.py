"""`gcnn learning-curve`."""

import math
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gcnn_cli.cli.app import EXIT_CODES, Quiet, Threads, Verbose, app, start
from gcnn_cli.cli.checks import check_folders, check_recipe
from gcnn_cli.cli.stopping import stop_requests
from gcnn_cli.errors import UsageError

if TYPE_CHECKING:
    from gcnn_cli.experiment.runs import Run
    from gcnn_cli.samples.prepare import Prepared
    from gcnn_cli.samples.split import SplitConfig
    from gcnn_cli.training.loop import Progress


@app.command("learning-curve", epilog=EXIT_CODES)
def learning_curve(
    data: Annotated[list[Path], typer.Option("--data", help="Folder of scans, annotations and cut-outs; repeatable.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of the experiment; rerun the same command to continue it.")
    ],
    config: Annotated[
        Path | None,
        typer.Option("--config", help="TOML file of settings, as for gcnn train; the options below override it."),
    ] = None,
    groups: Annotated[
        str, typer.Option(help="Comma-separated arms: groups, 'unturned', 'wide' (described above).")
    ] = "trivial,wide,O,D4h,Oh",
    samples: Annotated[str, typer.Option(help="Comma-separated numbers of training samples.")] = "30,300,3000",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each arm at each number of samples.")] = 3,
    first_seed: Annotated[
        int, typer.Option("--first-seed", min=0, help="First seed; with F folds, seed S holds out fold S mod F + 1.")
    ] = 0,
    budgets: Annotated[
        str, typer.Option(help="Comma-separated CPU seconds of training after which networks are measured too.")
    ] = "",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimization steps of every training (default: 1200).")
    ] = None,
    hold_out: Annotated[list[str] | None, typer.Option("--hold-out", help="Patient to test on; repeatable.")] = None,
    hold_out_share: Annotated[
        float | None, typer.Option(min=0, max=0.9, help="Share of the other patients to hold out (default: 0.2).")
    ] = None,
    split_seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the choice of held-out patients (default: 0).")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of preprocessed scans (default: OUT/cache).")] = None,
    only_table: Annotated[
        bool, typer.Option("--only-table", help="Train nothing; make the tables of finished trainings.")
    ] = False,
    threads: Threads = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure the score on held-out patients against the number of training samples, for each symmetry.

    Other arms: 'unturned' (plain CNN, no augmentation by turning), 'wide' (plain CNN, as much arithmetic as O's) and,
    with --config winkels2018-trivial, the article's networks by their names, such as winkels2018-d4h.
    """
    check_recipe(config)
    check_folders(data)
    errors = start(quiet, verbose, threads)

    from gcnn_cli.experiment.arms import make_arms
    from gcnn_cli.experiment.curve_figures import make_cells, make_strata
    from gcnn_cli.experiment.curve_files import curve_text, write_curve
    from gcnn_cli.experiment.pace import read_pace
    from gcnn_cli.experiment.results import describe_experiment, read_results
    from gcnn_cli.experiment.runs import Experiment, plan_runs, run_all
    from gcnn_cli.experiment.splits import splits_by_fold
    from gcnn_cli.samples.prepare import prepare
    from gcnn_cli.training.loop import Interrupted
    from gcnn_cli.training.recipe import read_recipe

    try:
        counts = tuple(int(count) for count in samples.split(","))
    except ValueError:
        counts = ()
    if not counts or min(counts) < 2:
        raise UsageError(f"--samples must be comma-separated numbers of at least 2, got {samples!r}")
    try:
        times = tuple(float(seconds) for seconds in budgets.split(",") if seconds.strip())
    except ValueError:
        times = (math.nan,)
    if not all(0 < seconds < math.inf for seconds in times):
        raise UsageError(f"--budgets must be comma-separated CPU seconds above 0, got {budgets!r}")
    split = {"hold_out": tuple(hold_out) if hold_out else None, "share": hold_out_share, "seed": split_seed}
    recipe = read_recipe(config, {"train": {"steps": steps}, "split": split})
    named = tuple(name.strip() for name in groups.split(",") if name.strip())
    arms = make_arms(named, recipe.train.network)
    if not only_table:
        with errors.status("reading and preprocessing scans") as status, stop_requests() as signal_number:

            def prepare_fold(split: "SplitConfig") -> "Prepared":
                where = cache or out / "cache"
                return prepare(list(data), recipe.samples, split, cache=where, held_out_transplants=True)

            pace = read_pace(out, arms, recipe.train) if times else {}
            command = shlex.join(["gcnn", *sys.argv[1:]])
            experiment = Experiment(recipe, out, splits_by_fold(prepare_fold, recipe.split), times, pace, command)
            rates: dict[str, float] = {}

            def watch(run: "Run", left: int, line: "Progress") -> None:
                rates[run.arm.name] = recipe.train.batch_size / max(line.patches_per_s, 1e-9)
                per_step = sum(rates.values()) / len(rates)
                remaining = (left * recipe.train.steps - line.step) * per_step / 60
                status.update(
                    f"{run.name}: step {line.step}/{recipe.train.steps}  loss {line.loss:.3f}  {left} trainings left,"
                    f" about {remaining:.0f} min at the mean pace of the arms so far"
                )

            try:
                runs = plan_runs(arms, counts, seeds, first_seed)
                run_all(runs, experiment, watch=watch, should_stop=lambda: signal_number() > 0)
            except Interrupted:
                typer.echo("stopped; rerun the same command to continue", err=True)
                raise typer.Exit(128 + signal_number()) from None
    tests, results = read_results(out)
    cells, strata = make_cells(tests, results), make_strata(tests, results)
    about = describe_experiment(tests, results)
    write_curve(cells, strata, out, about)
    typer.echo(curve_text(cells, strata, about), nl=False)
