"""`gcnn evaluate`."""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gcnn_cli import NOTICE
from gcnn_cli.cli.app import (
    DEFAULT_MODEL,
    EXIT_CODES,
    AsJson,
    Overwrite,
    Quiet,
    Threads,
    Verbose,
    app,
    console,
    start,
)
from gcnn_cli.errors import InputError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from gcnn_cli.evaluation.evaluation import Evaluation
    from gcnn_cli.evaluation.inputs import EvaluationInput
    from gcnn_cli.network.weights import TrainedModel


@app.command(epilog=EXIT_CODES)
def evaluate(
    froc: Annotated[bool, typer.Option("--froc", help="FROC and CPM by LUNA16's rules; what is done anyway.")] = True,
    predictions: Annotated[
        Path | None,
        typer.Option(help="CSV (seriesuid,coordX,coordY,coordZ,probability), reports of gcnn detect, or their folder."),
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option(help="CSV of the nodules: seriesuid,coordX,coordY,coordZ,diameter_mm.")
    ] = None,
    excluded: Annotated[Path | None, typer.Option(help="CSV of marks to ignore; same columns.")] = None,
    series: Annotated[
        Path | None, typer.Option(help="Every evaluated scan's id, one a line, those without nodules included.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Labelled folder: detect in its scans, then evaluate. The sample without any input."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", envvar="GCNN_MODEL", help="Shipped name or path of a weights file.")
    ] = None,
    device: Annotated[str, typer.Option(envvar="GCNN_DEVICE", help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for tables, plots and detections.")] = None,
    cpm: Annotated[
        Literal["luna16", "nearest"], typer.Option(help="Interpolate the curve, or read its nearest point.")
    ] = "luna16",
    max_marks: Annotated[int, typer.Option(min=0, help="Marks kept in a scan; 0: all. LUNA16: 100.")] = 100,
    hit_radius: Annotated[
        float | None, typer.Option(help="mm instead of each nodule's radius; for studies, not LUNA16's rule.")
    ] = None,
    bootstraps: Annotated[int, typer.Option(min=0, help="Resamples of scans for the intervals.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
    compare: Annotated[
        Path | None, typer.Option(help="Other predictions for the same scans: paired difference in CPM.")
    ] = None,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Reliability, and Platt's map.")] = False,
    save_calibrated: Annotated[
        Path | None,
        typer.Option(help="Write the weights again with the map and operating points found here; with --data."),
    ] = None,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Leave out predictions for other scans, as LUNA16's script does.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse scans that the weights were trained on.")] = False,
    threads: Threads = None,
    overwrite: Overwrite = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Use detections of an earlier run into the same --out.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Measure detections against reference nodules: FROC, CPM and intervals by LUNA16's rules."""
    del froc  # the only measure so far; the flag names it
    if predictions and data:
        raise UsageError("--predictions evaluates files, --data runs detection; give one of them")
    if predictions and not annotations:
        raise UsageError("--predictions needs --annotations, the nodules to compare with")
    if not predictions and (annotations or excluded or series):
        raise UsageError("--annotations, --excluded and --series go with --predictions; a --data folder holds its own")
    if save_calibrated and (predictions or not calibrate):
        raise UsageError("--save-calibrated needs --calibrate and detections made here (--data)")
    if resume and (predictions or not out):
        raise UsageError("--resume continues detections in --out; it goes with --data")

    from gcnn_cli.evaluation.evaluation import EvaluationConfig, compare_matches
    from gcnn_cli.evaluation.evaluation import evaluate as measure
    from gcnn_cli.evaluation.exports import evaluation_data, file_names, write_evaluation
    from gcnn_cli.evaluation.inputs import from_files
    from gcnn_cli.evaluation.leakage import find_leakage
    from gcnn_cli.evaluation.matching import MatchRule
    from gcnn_cli.evaluation.rows import rate_rows, stratum_rows, summary_lines
    from gcnn_cli.files import check_not_existing
    from gcnn_cli.output.listing import show_rows

    errors = start(quiet, verbose, threads)
    config = EvaluationConfig(MatchRule(max_marks, hit_radius), cpm, bootstraps, seed)
    if out:
        check_not_existing([out / name for name in file_names(calibrate=calibrate)], overwrite=overwrite or resume)
    if save_calibrated:
        check_not_existing([save_calibrated], overwrite=overwrite)
    if predictions and annotations:
        subject = from_files(predictions, annotations, excluded, series)
        trained = _weights_behind(subject, model)
    else:
        subject, trained = _detect(data, model or DEFAULT_MODEL, device, out, overwrite, resume, strict, errors)
    leakage = find_leakage(trained.provenance if trained else None, subject.series, subject.patients)
    if strict:
        leakage.check()
    matches = subject.match(config.rule, allow_unknown=allow_unknown)
    every_mark = subject.match(MatchRule(0, hit_radius), allow_unknown=allow_unknown) if calibrate else None
    result = measure(matches, config, every_mark=every_mark)
    others, difference = [], None
    if compare:
        other = subject.with_predictions(compare).match(config.rule, allow_unknown=allow_unknown)
        others, difference = [(compare.name, measure(other, config))], compare_matches(matches, other, config)
    weights = {"name": trained.name, "sha256": trained.sha256} if trained else None
    report = evaluation_data(result, subject.sources(leakage, weights), difference)
    if out:
        name = predictions.name if predictions else trained.name if trained else ""
        write_evaluation(result, out, report, others, name=name, overwrite=overwrite or resume)
    if save_calibrated and trained:
        _save_calibrated(trained, result, save_calibrated, overwrite)
    if as_json:
        typer.echo(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        screen = console(stderr=False)
        show_rows(rate_rows(result), screen)
        show_rows(stratum_rows(result), screen)
        for line in summary_lines(result, difference):
            typer.echo(line)
    if not quiet:
        for remark in subject.remarks:
            typer.echo(remark, err=True)
        typer.echo(f"{'warning: ' if leakage.found else ''}{leakage}", err=True)


def _detect(
    data: Path | None,
    model: str,
    device: str,
    out: Path | None,
    overwrite: bool,
    resume: bool,
    strict: bool,
    errors: "Console",
) -> tuple["EvaluationInput", "TrainedModel"]:
    """Detections in the labelled scans of a folder, kept under `out`, and the weights that made them."""
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
    detector = make_detector(trained, choose_device(device))
    scans = [scan for scan in read_index([folder]).scans if scan.labelled]
    if not scans:
        raise InputError(f"{folder}: no scan is labelled")
    if strict:  # before hours of detection
        find_leakage(trained.provenance, [s.name for s in scans], [s.patient for s in scans]).check()
    errors.print(NOTICE, style="dim")
    with tempfile.TemporaryDirectory() as temporary, errors.status("") as status:
        reports = detect_labelled(
            scans,
            out / "detections" if out else Path(temporary),
            detector,
            overwrite=overwrite,
            resume=resume,
            notify=status.update,
        )
    return from_labelled(scans, reports, folder), trained


def _weights_behind(subject: "EvaluationInput", model: str | None) -> "TrainedModel | None":
    """The weights named by the user, or the shipped ones that the reports' checksum names."""
    sha256 = subject.predictions.weights_sha256
    if model is None and sha256 is None:
        return None
    from gcnn_cli.network.weights import list_models, load_model

    if model is not None:
        return load_model(model)
    return next((load_model(row["name"]) for row in list_models() if row["sha256"] == sha256), None)


def _save_calibrated(trained: "TrainedModel", result: "Evaluation", path: Path, overwrite: bool) -> None:
    """The weights with the map and operating points of this evaluation."""
    from gcnn_cli.network.weights import save_model

    study = result.calibration
    if study is None:
        return
    map_ = study.platt
    points = tuple((p.rate, map_.apply_one(p.threshold)) for p in result.points if p.threshold is not None)
    calibration = trained.calibration.mapped(map_.slope, map_.offset, points)
    sha256 = save_model(trained.recalibrated(calibration, name=path.stem), path, overwrite=overwrite)
    typer.echo(f"{path}: sha256 {sha256}", err=True)
