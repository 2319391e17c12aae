"""`gcnn detect`: find nodules in one scan or many."""

import logging
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gcnn_cli import NOTICE
from gcnn_cli.cli.app import (
    EXIT_CODES,
    AllowGaps,
    Device,
    ModelOption,
    Overwrite,
    ProposalsOption,
    Quiet,
    Threads,
    Verbose,
    app,
    console,
    echo,
    echo_error,
    echo_json,
    shown_in,
    start,
)
from gcnn_cli.cli.checks import check_device, check_files, check_group, check_weights
from gcnn_cli.errors import UsageError, printable
from gcnn_cli.network.weight_files import DEFAULT_MODEL, DEFAULT_PROPOSALS

if TYPE_CHECKING:
    from gcnn_cli.cohort.batch import FinishedScan
    from gcnn_cli.cohort.jobs import Runner
    from gcnn_cli.detection.stages import Notify, Step
    from gcnn_cli.network.weights import TrainedModel


@app.command(epilog=EXIT_CODES)
def detect(
    scans: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCAN...",
            help="DICOM folder, .mhd, .mha, .nii, .nii.gz, .hdr or .nrrd; a zip or tar of one; a folder of scans;"
            " @FILE or '-' (stdin): a list with one path per line.",
        ),
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", envvar="GCNN_OUT", help="Output folder; '-' prints JSON to stdout.")
    ] = ".",
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            envvar="GCNN_FORMAT",
            help="Comma-separated list of csv, json, luna16, html, png, slicer, grand-challenge, mask, seg, sr.",
        ),
    ] = "csv,json",
    model: ModelOption = DEFAULT_MODEL,
    proposals: ProposalsOption = DEFAULT_PROPOSALS,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            envvar="GCNN_THRESHOLD",
            help="Lowest probability to report; 0 lists every candidate. Default: the weights' own.",
        ),
    ] = None,
    fp_per_scan: Annotated[
        float | None,
        typer.Option(min=0, envvar="GCNN_FP_PER_SCAN", help="Operating point of the weights, instead of --threshold."),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    series: Annotated[
        str | None,
        typer.Option(envvar="GCNN_SERIES", help="SeriesInstanceUID, '#N' or '#N.M', as listed by gcnn info."),
    ] = None,
    lung_mask: Annotated[
        Path | None,
        typer.Option(
            envvar="GCNN_LUNG_MASK",
            help="Image file; detect only where it is above 0, instead of in the segmented lungs.",
        ),
    ] = None,
    average_over: Annotated[
        str | None,
        typer.Option(
            envvar="GCNN_AVERAGE_OVER",
            help="Test-time group pooling: average the score over the patch as moved by every element of this group."
            " Default: the group with which the weights were calibrated.",
        ),
    ] = None,
    allow_gaps: AllowGaps = False,
    overwrite: Overwrite = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            envvar="GCNN_RESUME",
            help="Skip scans with results from the same options, weights and version of gcnn.",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, envvar="GCNN_WORKERS", help="Number of worker processes on this machine; they share its cores."
        ),
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(envvar="GCNN_CLUSTER", help="Address of a Dask scheduler, such as tcp://HOST:8786.")
    ] = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find nodules in one scan or many."""
    from gcnn_cli.output.formats import parse_formats

    if threshold is not None and fp_per_scan is not None:
        raise UsageError("--threshold and --fp-per-scan exclude each other")
    to_stdout = out == "-"
    requested = parse_formats("json" if to_stdout else formats)
    _check_cluster(workers, cluster)
    check_device(device)
    check_group(average_over)
    check_weights(model)
    check_weights(proposals)

    from gcnn_cli.cohort.request import Request, check_request, check_single
    from gcnn_cli.cohort.scans import find_cohort
    from gcnn_cli.files import check_writable

    stderr = start(quiet, verbose)
    request = Request(
        formats=requested,
        out=None if to_stdout else Path(out),
        threshold=0 if threshold is None else threshold,
        lung_mask=lung_mask,
        allow_gaps=allow_gaps,
        overwrite=overwrite,
        resume=resume,
    )
    with stderr.status("looking for scans"):
        cohort = find_cohort(scans, series=series, read_stdin=sys.stdin.buffer.read)
    check_request(request, cohort)
    check_files([lung_mask])
    check_single(request, cohort)
    if request.out:
        check_writable(request.out)

    from gcnn_cli.cohort.batch import run_cohort
    from gcnn_cli.network.weights import load_model

    start(quiet, verbose, threads)
    trained = load_model(model)
    average_over = trained.calibration.average_over if average_over is None else average_over
    if fp_per_scan is not None:
        threshold = trained.calibration.threshold_at(fp_per_scan)
    request = replace(request, threshold=trained.calibration.threshold if threshold is None else threshold)
    progress = _Progress()
    if cluster is None and workers is None:
        running = _in_this_process(trained, device, average_over, proposals, progress, verbose=verbose)
    else:
        from gcnn_cli.cohort.cluster import run_on_cluster, settings_for

        settings = settings_for(
            model, trained.sha256, device=device, average_over=average_over, proposals=proposals, threads=threads
        )
        running = run_on_cluster(settings, address=cluster, workers=workers or 1)
    if not quiet:
        stderr.print(NOTICE, style="dim")
        for line in (*cohort.found, *(f"set aside: {entry.path}: {entry.reason}" for entry in cohort.set_aside)):
            echo(line)
    with stderr.status("") as status, running as runner:
        progress.show, progress.scans = shown_in(status), len(cohort.scans)
        with closing(run_cohort(cohort, request, trained, runner)) as finished:
            for scan in finished:
                progress.finished, progress.failed = scan.finished, scan.failed
                status.stop()
                _show(scan, to_stdout=to_stdout, quiet=quiet, is_batch=cohort.is_batch)
                progress.update("")
                status.start()


def _check_cluster(workers: int | None, cluster: str | None) -> None:
    """Raise UsageError where both are given or Dask is not installed."""
    if workers is not None and cluster is not None:
        raise UsageError("--workers starts workers here, --cluster uses those of a scheduler; they exclude each other")
    if (workers is not None or cluster is not None) and find_spec("distributed") is None:
        raise UsageError(
            "--workers and --cluster need Dask, which is not installed: install gcnn with its extra 'cluster'"
        )


def _in_this_process(
    trained: "TrainedModel", device: str, average_over: str, proposals: str, progress: "_Progress", *, verbose: bool
) -> AbstractContextManager["Runner"]:
    from gcnn_cli.cohort.jobs import run_here
    from gcnn_cli.detection.detector import make_detector
    from gcnn_cli.network.devices import choose_device

    chosen = choose_device(device)
    if device == "auto" and chosen.type == "cpu" and verbose:
        typer.echo("no GPU found: running on the CPU", err=True)
    detector = make_detector(trained, chosen, average_over=average_over, proposals=proposals)
    return nullcontext(run_here(detector, progress.of_scan))


@dataclass
class _Progress:
    """One line about the whole cohort. show: displays it."""

    show: Callable[[str], None] = lambda text: None
    scans: int = 1
    finished: int = 0
    failed: int = 0

    def update(self, text: str) -> None:
        """Show the number of finished scans and the current stage."""
        many = f"{self.finished} of {self.scans} scans ({self.failed} failed)  " if self.scans > 1 else ""
        self.show(many + text)

    def of_scan(self, scan: Path) -> "Notify":
        """Return the callback for the stages of one scan."""

        def notify(step: "Step") -> None:
            self.update(printable(f"{scan.name}: {step}"))
            logging.getLogger("gcnn").debug("%s", printable(f"{scan}: {step}"))

        return notify


def _show(scan: "FinishedScan", *, to_stdout: bool, quiet: bool, is_batch: bool) -> None:
    """Print the result of one scan to stdout, its error or warnings to stderr."""
    from gcnn_cli.output.json_format import report_json
    from gcnn_cli.output.table import show_report

    if scan.result.failure:
        echo_error(scan.result.failure.error)
    report = scan.result.report
    if report is None:
        return
    for warning in report.warnings if not quiet else ():
        echo(f"warning: {report.scan.source.path}: {warning}")
    if to_stdout:
        echo_json(report_json(report, indent=None if is_batch else 2))
    elif not quiet:
        show_report(report, console(stderr=False))
