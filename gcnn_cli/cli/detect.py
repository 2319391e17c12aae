"""`gcnn detect`."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from gcnn_cli.cli.app import (
    EXIT_CODES,
    NOTICE,
    ModelOption,
    Overwrite,
    Quiet,
    Threads,
    Verbose,
    app,
    console,
    echo_error,
    start,
)
from gcnn_cli.errors import UsageError


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
        str,
        typer.Option(
            "--format",
            "-f",
            envvar="GCNN_FORMAT",
            help="Comma list of csv, json, luna16, html, png, slicer, grand-challenge, sr.",
        ),
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

    errors = start(quiet, verbose, threads)
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

        for report in detect_scans(request, trained, scorer, notify=notify, fail=echo_error):
            for warning in report.warnings if not quiet else ():
                typer.echo(f"warning: {report.scan.source.path}: {warning}", err=True)
            if to_stdout:
                typer.echo(report_json(report, indent=2 if len(scans) == 1 else None), nl=False)
            elif not quiet:
                status.stop()
                show_report(report, console(stderr=False))
                status.start()
