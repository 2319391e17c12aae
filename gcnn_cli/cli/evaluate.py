"""`gcnn evaluate`."""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gcnn_cli import NOTICE
from gcnn_cli.cli.app import (
    EXIT_CODES,
    AsJson,
    Device,
    Overwrite,
    ProposalsOption,
    Quiet,
    Threads,
    Verbose,
    app,
    console,
    echo_json,
    shown_in,
    start,
)
from gcnn_cli.cli.checks import check_device, check_files, check_folders, check_weights
from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.network.weight_files import DEFAULT_MODEL, DEFAULT_PROPOSALS

if TYPE_CHECKING:
    from rich.console import Console

    from gcnn_cli.evaluation.evaluation import Evaluation
    from gcnn_cli.evaluation.inputs import EvaluationInput
    from gcnn_cli.evaluation.run import EvaluationRun
    from gcnn_cli.network.proposal_weights import ProposalModel
    from gcnn_cli.network.weights import TrainedModel


@app.command(epilog=EXIT_CODES)
def evaluate(
    context: typer.Context,
    froc: Annotated[
        bool,
        typer.Option(
            "--froc", show_default=False, help="FROC and CPM by LUNA16's rules: the only measure, and the default."
        ),
    ] = True,
    predictions: Annotated[
        Path | None,
        typer.Option(help="CSV (seriesuid,coordX,coordY,coordZ,probability), reports of gcnn detect, or their folder."),
    ] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(help="CSV of the nodules: seriesuid,coordX,coordY,coordZ,diameter_mm (-1: unmeasured)."),
    ] = None,
    excluded: Annotated[Path | None, typer.Option(help="CSV of marks to ignore, with the same columns.")] = None,
    series: Annotated[
        Path | None,
        typer.Option(help="List of every evaluated scan, including those without nodules: one seriesuid per line."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Labeled folder: detect in its scans, then evaluate. Default: the sample scan."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            envvar="GCNN_MODEL",
            help="Shipped name or path of a weights file. Default: that of gcnn detect, or the weights that the reports"
            " name. With --predictions: the weights that made them; the variable is not used.",
        ),
    ] = None,
    proposals: ProposalsOption = DEFAULT_PROPOSALS,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for tables, plots and detections.")] = None,
    cpm: Annotated[
        Literal["luna16", "nearest"],
        typer.Option(help="Read the curve by linear interpolation (LUNA16) or at its nearest point."),
    ] = "luna16",
    max_marks: Annotated[int, typer.Option(min=0, help="Marks kept per scan; 0: all. LUNA16: 100.")] = 100,
    hit_radius: Annotated[
        float | None, typer.Option(help="Radius in mm for every nodule instead of its own. Not LUNA16's rule.")
    ] = None,
    bootstraps: Annotated[
        int, typer.Option(min=0, help="Bootstrap resamples for the intervals; 0: no intervals.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.")] = 0,
    compare: Annotated[
        Path | None, typer.Option(help="Other predictions for the same scans: test the difference in CPM.")
    ] = None,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Measure reliability and fit Platt's map.")] = False,
    save_calibrated: Annotated[
        Path | None,
        typer.Option(help="Write the weights with this map and these operating points. Needs --calibrate."),
    ] = None,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Drop predictions for other scans, as LUNA16's script does.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail unless the weights are known not to be trained on these scans.")
    ] = False,
    threads: Threads = None,
    overwrite: Overwrite = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the detections of an earlier run with the same --out.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure detections against reference nodules: FROC, CPM and intervals by LUNA16's rules."""
    del froc  # the flag only names the default measure
    _check_options(predictions, annotations, excluded, series, data, out, calibrate, save_calibrated, resume)

    source = context.get_parameter_source("model")
    if predictions and source and source.name == "ENVIRONMENT":
        model = None  # which weights are used by default says nothing about those that made a file
    check_device(device)
    check_weights(model)
    check_weights(proposals)
    check_folders([data])
    check_files([predictions, annotations, excluded, series, compare])

    from gcnn_cli.evaluation.evaluation import EvaluationConfig
    from gcnn_cli.evaluation.exports import file_names
    from gcnn_cli.evaluation.inputs import from_files
    from gcnn_cli.evaluation.matching import MatchRule
    from gcnn_cli.evaluation.run import Weights, run_evaluation
    from gcnn_cli.files import check_not_existing

    errors = start(quiet, verbose)
    config = EvaluationConfig(MatchRule(max_marks, hit_radius), cpm, bootstraps, seed)
    if out:
        check_not_existing([out / name for name in file_names(calibrate=calibrate)], overwrite=overwrite or resume)
    if save_calibrated:
        check_not_existing([save_calibrated], overwrite=overwrite)
    start(quiet, verbose, threads)
    if predictions and annotations:
        inputs = from_files(predictions, annotations, excluded, series)
        trained = _find_weights(model, inputs.predictions.weights_sha256)
        proposing = _find_proposals(proposals, inputs.predictions.proposals_sha256)
    else:
        inputs, trained, proposing = _detect(
            data, model or DEFAULT_MODEL, proposals, device, out, overwrite, resume, strict, errors
        )
    run = run_evaluation(
        inputs,
        config,
        Weights(trained.name, trained.sha256, _training_data(trained, model), proposing) if trained else None,
        compare=compare,
        calibrate=calibrate,
        allow_unknown=allow_unknown,
        strict=strict,
    )
    if out:
        run.write(out, overwrite=overwrite or resume)
    if save_calibrated and trained:
        _save_calibrated(trained, run.evaluation, save_calibrated, overwrite)
    if as_json:
        echo_json(json.dumps(run.data(), indent=2, ensure_ascii=False) + "\n")
    else:
        _print_tables(run)
    if not quiet:
        for remark in run.inputs.remarks:
            typer.echo(remark, err=True)
        typer.echo(f"{'warning: ' if run.leakage.found else ''}{run.leakage}", err=True)


def _check_options(
    predictions: Path | None,
    annotations: Path | None,
    excluded: Path | None,
    series: Path | None,
    data: Path | None,
    out: Path | None,
    calibrate: bool,
    save_calibrated: Path | None,
    resume: bool,
) -> None:
    """Raise UsageError for options that do not go together."""
    if predictions and data:
        raise UsageError("--predictions evaluates files, --data runs detection; give one of them")
    if predictions and not annotations:
        raise UsageError("--predictions needs --annotations, the nodules to compare with")
    if not predictions and (annotations or excluded or series):
        raise UsageError("--annotations, --excluded and --series go with --predictions; a --data folder has its own")
    if save_calibrated and (predictions or not calibrate):
        raise UsageError("--save-calibrated needs --calibrate and goes with --data")
    if resume and (predictions or not out):
        raise UsageError("--resume continues detections in --out and goes with --data")


def _print_tables(run: "EvaluationRun") -> None:
    from gcnn_cli.evaluation.rows import rate_rows, stratum_rows, summary_lines
    from gcnn_cli.output.listing import show_rows

    screen = console(stderr=False)
    show_rows(rate_rows(run.evaluation), screen)
    show_rows(stratum_rows(run.evaluation), screen)
    for line in summary_lines(run.evaluation, run.comparison.difference if run.comparison else None):
        typer.echo(line)


def _detect(
    data: Path | None,
    model: str,
    proposals: str,
    device: str,
    out: Path | None,
    overwrite: bool,
    resume: bool,
    strict: bool,
    errors: "Console",
) -> tuple["EvaluationInput", "TrainedModel", dict[str, Any]]:
    """Detect in the labeled scans of a folder. Reports are kept under `out`.

    Return the weights and the provenance of the proposal network, too.
    """
    from gcnn_cli.cohort.labelled import detect_labelled
    from gcnn_cli.detection.detector import make_detector
    from gcnn_cli.evaluation.inputs import from_labelled
    from gcnn_cli.evaluation.leakage import find_leakage
    from gcnn_cli.labels.index import read_index
    from gcnn_cli.network.devices import choose_device
    from gcnn_cli.network.weights import load_model
    from gcnn_cli.phantom.sample import sample_folder

    folder = data or sample_folder()
    trained = load_model(model)
    detector = make_detector(trained, choose_device(device), proposals=proposals)
    proposing = _training_data(detector.proposer.model, proposals)
    index = read_index([folder])
    scans = [scan for scan in index.scans if scan.labelled]
    if not scans:
        raise InputError(f"{folder}: no labeled scan")
    if strict:  # before hours of detection
        names, patients = [scan.name for scan in scans], [scan.patient for scan in scans]
        find_leakage(_training_data(trained, model), names, patients, proposals=proposing).check()
    errors.print(NOTICE, style="dim")
    with tempfile.TemporaryDirectory() as temporary, errors.status("") as status:
        reports = detect_labelled(
            scans,
            out / "detections" if out else Path(temporary),
            detector,
            overwrite=overwrite,
            resume=resume,
            notify=shown_in(status),
        )
    return from_labelled(scans, reports, folder, index.problems), trained, proposing


def _find_weights(model: str | None, sha256: str | None) -> "TrainedModel | None":
    """Load the weights that the user names, or the shipped weights with the checksum in the reports.

    Raises InputError if the reports name others: the check for leakage would be of the wrong weights.
    """
    if model is None and sha256 is None:
        return None
    from gcnn_cli.network.shipped import list_models
    from gcnn_cli.network.weights import load_model

    if model is not None:
        trained = load_model(model)
        if sha256 not in (None, trained.sha256):
            raise InputError(f"the reports were made with the weights {sha256[:12]}…, not with {model}")
        return trained
    return next((load_model(row["name"]) for row in list_models() if row["sha256"] == sha256), None)


def _find_proposals(model: str, sha256: str | None) -> dict[str, Any] | None:
    """Return the provenance of the network that proposed the candidates of reports, if it is the one that is named.

    Others cannot be checked: their provenance is empty. Return None for tables, whose origin nobody states.
    """
    if sha256 is None:
        return None
    from gcnn_cli.network.proposal_weights import load_proposal_model

    proposer = load_proposal_model(model)
    return _training_data(proposer, model) if proposer.sha256 == sha256 else {}


def _training_data(trained: "TrainedModel | ProposalModel", model: str | None) -> dict[str, Any]:
    """Return the provenance, with the names of the training data if the folder of its run is beside the weights.

    It is for the leakage check alone: weights that are written again must not name data that they did not name.
    """
    from gcnn_cli.network.weights import find_weights
    from gcnn_cli.training.provenance import read_data_names
    from gcnn_cli.training.run_files import run_folder

    names = read_data_names(run_folder(find_weights(model)), trained.sha256) if model else {}
    return {**names, **trained.provenance}


def _save_calibrated(trained: "TrainedModel", evaluation: "Evaluation", path: Path, overwrite: bool) -> None:
    """Write the weights with the map and operating points of this evaluation."""
    from gcnn_cli.network.weights import save_model

    assert evaluation.calibration is not None  # for the type checker: --save-calibrated needs --calibrate
    platt = evaluation.calibration.platt
    calibration = trained.calibration.mapped(platt.slope, platt.offset, evaluation.calibrated_points(platt))
    sha256 = save_model(trained.recalibrated(calibration, name=path.stem), path, overwrite=overwrite)
    typer.echo(f"{path}: sha256 {sha256}", err=True)
