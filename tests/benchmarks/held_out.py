"""What weights do on what they have never seen: transplanted and real nodules of held-out patients.

    python tests/benchmarks/held_out.py DATA WORK MODEL [MODEL ...] [--average-over O]

DATA is the training data, WORK a folder for the benchmark scans (`transplants.py`) and the detections, which
are made once and used again. All models must have been trained with the same patients held out. Prints Markdown.

- FROC by LUNA16's rules on the labelled held-out scans with 25 transplanted nodules each.
- Sensitivity on the other held-out scans, which have no labels to count false positives by, at the
  thresholds of the labelled ones.
- Held-out nodules in their own surroundings (stacks of slices, cubes), scored as one patch at their center, at
  the same thresholds. No candidate stage is involved there.
"""

import argparse
import csv
import json
import shlex
import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import numpy as np
from transplants import PLACES, make_benchmark, provenance_of

from gcnn_cli.cohort.labelled import detect_labelled
from gcnn_cli.detection.detector import make_detector
from gcnn_cli.evaluation.evaluation import Evaluation, evaluate_matches
from gcnn_cli.evaluation.froc import RATES
from gcnn_cli.evaluation.inputs import from_labelled
from gcnn_cli.evaluation.matching import Matches, MatchRule
from gcnn_cli.labels.index import read_index
from gcnn_cli.network.devices import choose_device
from gcnn_cli.network.weights import TrainedModel, load_model
from gcnn_cli.samples.donors import donor_samples, read_donor
from gcnn_cli.samples.duplicates import identify_patients
from gcnn_cli.samples.sample import Sample, SampleConfig
from gcnn_cli.training.scoring import score_samples

SHOWN = (0.5, 1.0, 2.0, 4.0, 8.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--average-over", default="trivial", help="test-time pooling over this group")
    parser.add_argument(
        "--cards", type=Path, help="folder for MODEL.json: what the weights' header says, and the figures"
    )
    arguments = parser.parse_args()
    scans = arguments.work / "scans"
    if not scans.is_dir():
        provenance = provenance_of(arguments.models[0])
        held, trained = set(provenance["held_out_patients"]), set(provenance["training_series"])
        make_benchmark([arguments.data], scans, held, trained)
    models = [load_model(name) for name in arguments.models]
    if len({tuple(model.provenance["held_out_patients"]) for model in models}) > 1:
        raise SystemExit("these models were not trained with the same patients held out")
    context = real_context(arguments.data, set(models[0].provenance["held_out_patients"]))
    print_header()
    details = []
    command = shlex.join(["python", "tests/benchmarks/held_out.py", *sys.argv[1:]])
    for model in models:
        labelled = detected(model, scans / "labelled", arguments.work, arguments.average_over)
        unlabelled = detected(model, scans / "unlabelled", arguments.work, arguments.average_over)
        scores = context_scores(model, context)
        pooled = "" if arguments.average_over == "trivial" else f", pooled over {arguments.average_over}"
        print_rows(model.name + pooled, labelled, unlabelled.matches, scores)
        if arguments.cards:
            write_card(model, labelled, unlabelled.matches, scores, command, arguments.cards / f"{model.name}.json")
        details += detail_lines(model.name + pooled, labelled, unlabelled.matches, scans)
    print("\n" + "\n".join(details))


def detected(model: TrainedModel, folder: Path, work: Path, average_over: str) -> Evaluation:
    """Every scan of a folder searched (once), and evaluated."""
    index = read_index([folder])
    detector = make_detector(model, choose_device("cpu"), average_over=average_over)
    out = work / f"{model.sha256[:12]}-{average_over}" / folder.name
    reports = detect_labelled(index.scans, out, detector, overwrite=False, resume=True, notify=lambda _: None)
    inputs = from_labelled(index.scans, reports, folder)
    return evaluate_matches(inputs.match(MatchRule()))


def real_context(data: Path, patients: set[str]) -> dict[str, list[Sample]]:
    """Held-out nodules in their own surroundings, by kind of cut-out."""
    samples: dict[str, list[Sample]] = defaultdict(list)
    config = SampleConfig()
    for entry in identify_patients(list(read_index([data]).cutouts)):
        if entry.masked and entry.patient in patients and (donor := read_donor(entry, config)):
            positive = donor_samples(donor, config, np.random.default_rng(0))[0]
            samples[positive.kind].append(positive)
    return samples


def context_scores(model: TrainedModel, context: dict[str, list[Sample]]) -> dict[str, np.ndarray]:
    """Probabilities of each kind's nodules."""
    return {
        kind: np.array([model.calibration.probability(float(x)) for x in logits_of(model, samples)])
        for kind, samples in sorted(context.items())
    }


def logits_of(model: TrainedModel, samples: list[Sample]) -> np.ndarray:
    return score_samples(model.network, samples, model.input, choose_device("cpu"))


def print_header() -> None:
    print("| weights | measured on | nodules | " + " | ".join(f"at {rate:g}" for rate in SHOWN) + " | CPM |")
    print("|---|---|---|" + "---|" * (len(SHOWN) + 1))


def print_rows(name: str, labelled: Evaluation, unlabelled: Matches, context: dict[str, np.ndarray]) -> None:
    points = {point.rate: point for point in labelled.points}
    interval = "" if labelled.cpm_interval is None else " ({:.3f}-{:.3f})".format(*labelled.cpm_interval)
    cells = [f"{points[rate].sensitivity:.3f}" for rate in SHOWN]
    row = (name, "labeled scans, FROC", str(labelled.counts.nodules), *cells, f"{labelled.cpm:.3f}{interval}")
    print("| " + " | ".join(row) + " |")
    groups = {
        "scans without labels": unlabelled.nodule_score,
        **{f"own surroundings: {k}s": v for k, v in context.items()},
    }
    for group, scores in groups.items():
        shares = ["-" if (cut := points[rate].threshold) is None else f"{(scores >= cut).mean():.3f}" for rate in SHOWN]
        print("| " + " | ".join((name, group, str(len(scores)), *shares, "")) + " |")


def write_card(
    model: TrainedModel,
    labelled: Evaluation,
    unlabelled: Matches,
    context: dict[str, np.ndarray],
    command: str,
    path: Path,
) -> None:
    """Everything the header holds but the tensors, and the figures with the command that made them."""
    cuts = {point.rate: point.threshold for point in labelled.points}
    groups = {
        "scans_without_labels": unlabelled.nodule_score,
        **{f"own_surroundings_{k}": v for k, v in context.items()},
    }
    figures = {
        "command": command,
        "rule": labelled.config.name,
        "labelled_scans": {
            "nodules": labelled.counts.nodules,
            "cpm": labelled.cpm,
            "cpm_interval": labelled.cpm_interval,
            "sensitivity": {f"{point.rate:g}": point.sensitivity for point in labelled.points},
        },
        **{
            name: {
                "nodules": len(scores),
                "sensitivity": {
                    f"{rate:g}": float((scores >= cut).mean()) for rate, cut in cuts.items() if cut is not None
                },
            }
            for name, scores in groups.items()
        },
    }
    card = {
        "name": model.name,
        "group": model.group,
        "parameters": model.network.parameters_count,
        "sha256": model.sha256,
        "input": asdict(model.input),
        "calibration": asdict(model.calibration),
        "intended_use": "Research on nodule detection in chest CT. Not a medical device, not for diagnosis.",
        "figures": figures,
        "provenance": dict(model.provenance),
    }
    path.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def detail_lines(name: str, labelled: Evaluation, unlabelled: Matches, scans: Path) -> list[str]:
    """By diameter and by place at 1 FP/scan, and what no candidate reaches."""
    cut = labelled.points[RATES.index(1.0)].threshold or np.inf
    scores = np.concatenate([labelled.matches.nodule_score, unlabelled.nodule_score])
    diameters = np.concatenate([labelled.matches.nodules.value, unlabelled.nodules.value])
    places = np.array(places_of(scans / "labelled", labelled.matches) + places_of(scans / "unlabelled", unlabelled))
    lines = [f"- {name}: {np.isfinite(scores).sum()} of {len(scores)} nodules are hit by a candidate."]
    by_size = [
        f"{low:g}-{high:g} mm {share(scores[(diameters >= low) & (diameters < high)], cut)}"
        for low, high in ((4, 6), (6, 8), (8, 10), (10, 26))
    ]
    by_place = [f"{place} {share(scores[places == place], cut)}" for place in PLACES]
    lines.append(f"- {name}, at 1 FP/scan, all scans: {', '.join(by_size)}; {', '.join(by_place)}.")
    return lines


def share(scores: np.ndarray, cut: float) -> str:
    return f"{int((scores >= cut).sum())}/{len(scores)}"


def places_of(folder: Path, matches: Matches) -> list[str]:
    """Where each nodule was put, in the order of the matches."""
    with (folder / "annotations.csv").open(newline="") as file:
        known = {(row["seriesuid"], round(float(row["coordX"]), 2)): row["place"] for row in csv.DictReader(file)}
    return [
        known[matches.series[scan], round(float(position[0]), 2)]
        for scan, position in zip(matches.nodule_scan, matches.nodules.position_mm, strict=True)
    ]


if __name__ == "__main__":
    main()
