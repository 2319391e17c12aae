"""The command line: options in, one call, errors out. Heavy imports live inside the commands.

stdout carries results only; progress, warnings and errors go to stderr.
"""

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from gcnn_cli import __version__
from gcnn_cli.errors import GcnnError, OutputError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

EXIT_CODES = (
    "Exit codes: 0 done, with or without nodules · 1 a bug · 2 usage · 3 input unreadable or not a chest CT ·"
    " 4 several series and none chosen · 5 geometry refused · 6 weights missing or altered · 7 device"
    " unavailable or out of memory · 8 some scans of a batch failed · 9 a result cannot be written ·"
    " 130 interrupted."
)
NOTICE = "Research use only: not a medical device, not for diagnosis."


class ErrorGroup(TyperGroup):
    """Turns expected failures into one line and an exit code, in one place."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except GcnnError as error:  # only ours: a bug keeps its traceback
            _echo_error(error)
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:
            # The reader of our output has gone: nobody is left to tell, not even when Python flushes at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from None
        except OSError as error:  # inputs report theirs as InputError: what is left is writing
            if error.filename is None:
                raise
            _echo_error(OutputError(f"{error.filename}: cannot be written: {error.strerror}"))
            raise typer.Exit(OutputError.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=ErrorGroup,
    help="Find pulmonary nodules in chest CT with 3D group-equivariant CNNs. " + NOTICE,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ModelOption = Annotated[
    str, typer.Option("--model", "-m", envvar="GCNN_MODEL", help="Shipped name or path of a weights file.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", envvar="GCNN_OVERWRITE", help="Replace files that exist.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", envvar="GCNN_QUIET", help="Only errors on stderr.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", envvar="GCNN_VERBOSE", help="Tell each step.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of a table.")]
Threads = Annotated[int | None, typer.Option(min=1, envvar="GCNN_THREADS", help="CPU threads; all cores by default.")]


def main() -> None:
    """Entry point of the console script."""
    app()


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"gcnn {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    del version  # its callback has done the work


@app.command(epilog=EXIT_CODES)
def detect(
    scans: Annotated[
        list[Path],
        typer.Argument(metavar="SCAN...", help="DICOM folder or zip, .mhd, .mha, .nii, .nii.gz or .nrrd."),
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", envvar="GCNN_OUT", help="Folder for the files; '-': JSON on stdout.")
    ] = ".",
    formats: Annotated[
        str, typer.Option("--format", "-f", envvar="GCNN_FORMAT", help="Comma list of csv, json, luna16.")
    ] = "csv,json",
    model: ModelOption = "octahedral",
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, envvar="GCNN_THRESHOLD", help="Lowest probability; 0 lists every candidate."),
    ] = None,
    fp_per_scan: Annotated[
        float | None,
        typer.Option(min=0, envvar="GCNN_FP_PER_SCAN", help="Operating point stored in the weights."),
    ] = None,
    device: Annotated[str, typer.Option(envvar="GCNN_DEVICE", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    threads: Threads = None,
    series: Annotated[
        str | None, typer.Option(envvar="GCNN_SERIES", help="SeriesInstanceUID or '#N' (see gcnn info).")
    ] = None,
    lung_mask: Annotated[
        Path | None, typer.Option(envvar="GCNN_LUNG_MASK", help="Mask file: look only where it is above 0.")
    ] = None,
    average_over: Annotated[
        str,
        typer.Option(
            envvar="GCNN_AVERAGE_OVER",
            help="Test-time group pooling: mean score over the patch turned by every element of this group.",
        ),
    ] = "trivial",
    overwrite: Overwrite = False,
    resume: Annotated[
        bool, typer.Option("--resume", envvar="GCNN_RESUME", help="Skip scans that are done already.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find nodules in one or many scans."""
    from gcnn_cli.output.formats import parse_formats

    if threshold is not None and fp_per_scan is not None:
        raise UsageError("--threshold and --fp-per-scan both set the cut; give one of them")
    to_stdout = out == "-"
    requested = parse_formats("json" if to_stdout else formats)

    from gcnn_cli.cohort import Request, detect_scans
    from gcnn_cli.network.inference import choose_device, make_scorer
    from gcnn_cli.network.weights import load_model
    from gcnn_cli.output.json_format import report_json
    from gcnn_cli.output.table import show_report

    errors = _start(quiet, verbose, threads)
    chosen = choose_device(device)
    trained = load_model(model)
    if fp_per_scan is not None:
        threshold = trained.calibration.threshold_at(fp_per_scan)
    request = Request(
        scans=tuple(scans),
        formats=requested,
        out=None if to_stdout else Path(out),
        threshold=trained.calibration.threshold if threshold is None else threshold,
        series=series,
        lung_mask=lung_mask,
        overwrite=overwrite,
        resume=resume,
    )
    scorer = make_scorer(trained.network, chosen, average_over=average_over)
    if not quiet:
        errors.print(NOTICE, style="dim")
        if device == "auto" and chosen.type == "cpu" and verbose:
            errors.print("no GPU found: running on the CPU")
    with errors.status("") as status:

        def notify(scan: Path) -> Callable[[str], None]:
            def tell(stage: str) -> None:
                status.update(f"{scan.name}: {stage}")
                logging.getLogger("gcnn").debug("%s: %s", scan, stage)

            return tell

        for report in detect_scans(request, trained, scorer, notify=notify, fail=_echo_error):
            for warning in report.warnings if not quiet else ():
                typer.echo(f"warning: {report.scan.source.path}: {warning}", err=True)
            if to_stdout:
                typer.echo(report_json(report, indent=2 if len(scans) == 1 else None), nl=False)
            elif not quiet:
                status.stop()
                show_report(report, _console(stderr=False))
                status.start()


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
        show_rows(rows, _console(stderr=False))


@app.command(epilog=EXIT_CODES)
def models(as_json: AsJson = False) -> None:
    """List the weights at hand, checked against their checksums."""
    from gcnn_cli.network.weights import list_models
    from gcnn_cli.output.listing import show_rows

    rows = list_models()
    if as_json:
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        show_rows(rows, _console(stderr=False))


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
        show_rows(rows, _console(stderr=False))
    worst = max(e.error for e in errors)
    if worst > TOLERANCE:
        raise ModelError(
            f"{model}: the score changes by {worst:.1e} (relative), more than {TOLERANCE:g}: not invariant"
        )
    typer.echo(f"largest relative change {worst:.1e}, at most {TOLERANCE:g} is allowed: invariant", err=True)


@app.command(epilog=EXIT_CODES)
def phantom(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")],
    seed: Annotated[int, typer.Option(min=0, help="Another seed, other vessels, nodules and noise.")] = 7,
    nodules: Annotated[int, typer.Option(min=0, help="How many nodules, of all kinds in turn.")] = 9,
    dicom: Annotated[bool, typer.Option("--dicom", help="Also as a DICOM series.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Make a synthetic chest CT with nodules at known places."""
    from gcnn_cli.phantom import PhantomConfig, make_phantom, write_phantom

    made = make_phantom(PhantomConfig(seed=seed, nodules=nodules))
    write_phantom(made, out, dicom=dicom, overwrite=overwrite)
    typer.echo(f"{out}: a scan with {len(made.nodules)} nodules and its truth in annotations.csv", err=True)


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
    threads: Threads = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train weights from labelled scans."""
    _start(quiet, verbose, threads)

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
        )
    )


def _start(quiet: bool, verbose: bool, threads: int | None) -> "Console":
    """Logging, threads and the console for stderr, as the options say."""
    level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("gcnn").setLevel(level)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    return _console(stderr=True, quiet=quiet)


def _console(*, stderr: bool, quiet: bool = False) -> "Console":
    """A rich console: no color or bar when it is not a terminal, wide when it is a pipe."""
    from rich.console import Console

    console = Console(stderr=stderr, quiet=quiet)
    return console if console.is_terminal else Console(stderr=stderr, quiet=quiet, width=200)


def _matrix(matrix: tuple[tuple[int, ...], ...]) -> str:
    return " ".join("[" + " ".join(f"{value:2d}" for value in row) + "]" for row in matrix)


def _echo_error(error: GcnnError) -> None:
    typer.echo(f"error: {error}", err=True)
