"""`gcnn follow`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gcnn_cli import NOTICE
from gcnn_cli.cli.app import (
    EXIT_CODES,
    Device,
    ModelOption,
    Overwrite,
    Quiet,
    Threads,
    Verbose,
    app,
    console,
    echo,
    start,
)
from gcnn_cli.cli.checks import check_device, check_weights
from gcnn_cli.network.weight_files import DEFAULT_MODEL

if TYPE_CHECKING:
    from gcnn_cli.detection.detector import Detector


@app.command(epilog=EXIT_CODES)
def follow(
    prior: Annotated[Path, typer.Argument(help="The earlier scan, or its .nodules.json.")],
    current: Annotated[Path, typer.Argument(help="The later scan of the same patient, or its .nodules.json.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")] = Path("."),
    days: Annotated[
        float | None, typer.Option(help="Days between the scans. Default: by the dates of the DICOM headers.")
    ] = None,
    prior_scan: Annotated[
        Path | None, typer.Option(help="Scan of an earlier result that is no longer where it was.")
    ] = None,
    current_scan: Annotated[
        Path | None, typer.Option(help="Scan of a later result that is no longer where it was.")
    ] = None,
    prior_series: Annotated[
        str | None, typer.Option(help="SeriesInstanceUID or #N of the earlier scan, if its folder holds several.")
    ] = None,
    current_series: Annotated[
        str | None, typer.Option(help="SeriesInstanceUID or #N of the later scan, if its folder holds several.")
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    device: Device = "auto",
    threads: Threads = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Lowest probability of a reported nodule. Default: that of the weights."),
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Follow nodules over two scans of a patient: what is new, what is gone, what has grown and how fast."""
    from gcnn_cli.files import check_not_existing, check_writable
    from gcnn_cli.followup.inputs import check_days, check_exam, follow_paths

    check_days(days)
    check_device(device)
    check_weights(model)
    paths = follow_paths(prior, current, out)
    check_not_existing(list(paths.values()), overwrite=overwrite)
    check_writable(out)
    check_exam(prior, scan=prior_scan, series=prior_series, threshold=threshold)
    check_exam(current, scan=current_scan, series=current_series, threshold=threshold)

    errors = start(quiet, verbose, threads)

    from gcnn_cli.followup.files import write_follow_up
    from gcnn_cli.followup.run import follow as follow_exams
    from gcnn_cli.followup.run import read_exam
    from gcnn_cli.followup.words import pair_rows
    from gcnn_cli.output.listing import show_rows

    if not quiet:
        errors.print(NOTICE, style="dim")
    ready: list[Detector] = []

    def detector() -> "Detector":
        from gcnn_cli.detection.detector import make_detector
        from gcnn_cli.network.devices import choose_device
        from gcnn_cli.network.weights import load_model

        if not ready:
            ready.append(make_detector(load_model(model), choose_device(device)))
        return ready[0]

    with errors.status("the earlier scan") as status:
        before = read_exam(prior, detector, scan=prior_scan, series=prior_series, threshold=threshold)
        status.update("the later scan")
        now = read_exam(current, detector, scan=current_scan, series=current_series, threshold=threshold)
        status.update("aligning the scans")
        made = follow_exams(before, now, days)
        status.update("writing")
        write_follow_up(made, paths, overwrite=overwrite)
    for warning in made.warnings if not quiet else ():
        echo(f"note: {warning}")
    if made.pairs:
        show_rows(pair_rows(made), console(stderr=False))
    else:
        typer.echo("No nodules at or above the threshold on either date.")
