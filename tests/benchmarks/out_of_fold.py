"""What the networks of a committee do on patients whom they have not seen.

    python tests/benchmarks/out_of_fold.py DATA committee [--transplants WORK] [--labels models/labels]
    python tests/benchmarks/out_of_fold.py DATA FOLD.safetensors [FOLD.safetensors ...] [--beside octahedral]

DATA is the data that the folds were trained on (`gcnn train --fold`). Weights are a committee, whose header names the
patients of each fold (`--name-data`), or those of folds; with some of the folds only, what these hold out is measured.
Prints Markdown.

- Labeled scans, searched by the whole detection: nodules and false positives of every scan, LUNA16's rules.
- Nodule cut-outs, scored as one patch at their center, at the thresholds of the scans: no candidate stage is involved.
- 95 % intervals: patients are drawn with replacement, with their scans, false positives and cut-outs (percentile
  bootstrap). False positives are of six patients at most, so the intervals of few folds say little.
- `--transplants`: nodules of a fold's patients put into the labeled scans of the same fold (`transplants.py`, two
  copies of each scan, in WORK), searched by the whole detection. Kinds are then the places, and nodules count for the
  patients that they come from.
- A committee with a network of another recipe (`gcnn combine --with`): each fold's network is measured together with
  it, on what neither has seen.
- `--beside`: the same for other weights, both on what neither has seen: nodules of patients whom the other weights
  were not trained on, false positives of scans that they were not trained on.
- `--against`: weights of the same folds, such as `plain_committee`, without the networks that join them: their figures
  and the difference, paired over the same draws of patients.
- `--together`: instead, the mean logit of each fold's two networks, and of the network that joins the first weights, on
  what all of them have not seen.
- `--labels`: a folder with further labels of DATA's scans. `models/labels` joins LUNA16's lists of marks that are
  neither nodules nor false positives with the scans in `../shared/data`.
"""

import argparse
import csv
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from torch import nn
from transplants import make_benchmark

from gcnn_cli.evaluation.froc import RATES, interval
from gcnn_cli.evaluation.matching import FALSE
from gcnn_cli.labels.index import read_index
from gcnn_cli.network.architecture import GCNN
from gcnn_cli.network.committee import Committee, members_of
from gcnn_cli.network.contract import Calibration
from gcnn_cli.network.devices import choose_device
from gcnn_cli.network.weights import TrainedModel, load_model
from gcnn_cli.samples.held_out import HeldOut, read_held_out
from gcnn_cli.samples.sample import SampleConfig
from gcnn_cli.training.combine import OTHER_KEYS, Names, OtherWeights, read_fold
from gcnn_cli.training.out_of_fold import OutOfFold, calibrate_out_of_fold, score_out_of_fold

SIZES_MM = (3, 4, 6, 8, 10, 15, 40)
PROBABILITIES = (0, 0.01, 0.05, 0.2, 0.5, 0.8, 1.01)
RESAMPLES = 1000
COPIES = {True: 2, False: 0}  # of a scan for transplants, by whether it is labeled

Origins = dict[tuple[str, float], tuple[str, str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", nargs="+", help="a committee, or the weights of folds")
    parser.add_argument("--average-over", default="Oh", help="test-time pooling over this group; default: Oh")
    parser.add_argument("--cache", type=Path, help="folder that `gcnn train --cache` wrote, to save time")
    parser.add_argument("--transplants", type=Path, help="folder for scans with transplanted nodules, made once")
    parser.add_argument("--beside", help="other weights, measured on what neither has seen")
    parser.add_argument("--against", nargs="+", help="other weights of the same folds, to compare each fold's network")
    parser.add_argument("--together", action="store_true", help="measure both weights' networks of a fold as one")
    parser.add_argument("--labels", type=Path, help="folder with further labels of the scans")
    arguments = parser.parse_args()
    members, held, other = read_members(arguments.weights)
    data = [arguments.data, *([arguments.labels] if arguments.labels else [])]
    known = None
    if arguments.transplants:
        work = [arguments.transplants / model.name for model in members]
        for patients, out in zip(held, work, strict=True):
            if not out.is_dir():
                make_benchmark(data, out, set(patients), set(), COPIES)
        known = origins(work)
        held_out = [HeldOut(read_index([out / "labelled"]).scans, ()) for out in work]
    else:
        held_out = read(data, members[0], held, arguments.cache)
    if arguments.against:
        others, also_held, _ = read_members(arguments.against)
        if [set(patients) for patients in also_held] != [set(patients) for patients in held]:
            parser.error("--against needs weights of the same folds")
        if arguments.together:
            if other:
                held_out = [unseen(part, other.names, known) for part in held_out]
            both = [together(*pair, other) for pair in zip(members, others, strict=True)]
            show("together", both, held_out, arguments.average_over, known)
            return
        rivals = [
            show(name, networks, held_out, networks[0].calibration.average_over, known)
            for name, networks in (("folds", members), ("against", others))
        ]
        show_difference(*rivals)
        return
    if other:
        members = [other.paired(model) for model in members]
        held_out = [unseen(part, other.names, known) for part in held_out]
    if not arguments.beside:
        show("folds", members, held_out, arguments.average_over, known)
        return
    beside = load_model(arguments.beside)
    names = {key: list(beside.provenance[key]) for key in OTHER_KEYS}
    show("folds", members, [unseen(part, names, known) for part in held_out], arguments.average_over, known)
    if not known:
        held_out = read(data, beside, held, arguments.cache)
    others = [unseen(part, names, known) for part in held_out]
    show(beside.name, [beside] * len(members), others, beside.calibration.average_over, known)


class Mixed(Committee):
    """A committee of networks with different groups, which no weights file can hold.

    It is averaged as the first is: its score is invariant only where all members' are.
    """

    def __init__(self, members: list[GCNN], shares: list[float]) -> None:
        nn.Module.__init__(self)
        self.members, self.shares = nn.ModuleList(members), tuple(shares)
        self.config, self.group = members[0].config, members[0].group


def together(first: TrainedModel, second: TrainedModel, other: OtherWeights | None) -> TrainedModel:
    """Two networks of one fold as one, at equal shares, and the network that joins them at its own."""
    share = other.share if other else 0.0
    networks = [first.network, second.network, *([other.model.network] if other else [])]
    shares = [(1 - share) / 2, (1 - share) / 2, *([share] if other else [])]
    return replace(first, network=Mixed(networks, shares).eval())


def read_members(weights: list[str]) -> tuple[list[TrainedModel], list[list[str]], OtherWeights | None]:
    """The folds' networks, named for their folds, the patients that each held out, and the network that joins them."""
    model = load_model(weights[0])
    if isinstance(model.network, GCNN):
        folds = [read_fold(Path(path)) for path in weights]
        numbered = [replace(fold.model, name=f"fold{fold.recipe['split']['fold']}") for fold in folds]
        return numbered, [fold.names["held_out_patients"] for fold in folds], None
    *members, last = members_of(model.network)
    described = list(model.provenance["members"])
    joining = model.provenance.get("other")
    other = None
    if joining:
        names = {key: list(joining[key]) for key in OTHER_KEYS}
        other = OtherWeights(replace(model, name=joining["name"], network=last), joining["share"], names)
    else:
        members.append(last)
    return (
        [replace(model, name=f"fold{m['fold']}", network=n) for m, n in zip(described, members, strict=True)],
        [m["held_out_patients"] for m in described],
        other,
    )


def origins(work: list[Path]) -> Origins:
    """Place and patient of every nodule in the transplant scans, by scan and x."""
    known = {}
    for out in work:
        with (out / "labelled" / "annotations.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                known[row["seriesuid"], round(float(row["coordX"]), 2)] = row["place"], row["patient"]
    return known


def read(data: list[Path], model: TrainedModel, held: list[list[str]], cache: Path | None) -> list[HeldOut]:
    samples = SampleConfig(**model.provenance["recipe"]["samples"])
    return read_held_out(data, samples, held, cache)


def unseen(held: HeldOut, names: Names, known: Origins | None) -> HeldOut:
    """What other weights were not trained on. Of transplants, the host's scan and the nodule's patient must be new."""
    patients, series = (set(names[key]) for key in OTHER_KEYS)
    if known is None:
        return held.unseen_by(patients, series)
    scans = []
    for scan in held.scans:
        if any(name.startswith(host_of(scan.name)) for name in series):  # hosts are named for their patients
            continue
        seen = [known[scan.name, round(nodule[0], 2)][1] in patients for nodule in scan.nodules]
        kept = tuple(nodule for nodule, s in zip(scan.nodules, seen, strict=True) if not s)
        away = tuple(nodule for nodule, s in zip(scan.nodules, seen, strict=True) if s)
        scans.append(replace(scan, nodules=kept, excluded=(*scan.excluded, *away)))
    return HeldOut(tuple(scans), ())


def host_of(series: str) -> str:
    """The scan into which the nodules of a transplant scan were put."""
    return series.rsplit("_host", 1)[0]


@dataclass(frozen=True, eq=False)
class Scores:
    """Nodules and false positives with their logits and patients; kind: "scan" or the cut-out's."""

    nodule: np.ndarray
    nodule_patient: np.ndarray
    kind: np.ndarray
    diameter_mm: np.ndarray
    false: np.ndarray
    false_patient: np.ndarray
    scan_patients: np.ndarray  # of each scan


def scores_of(scored: OutOfFold, known: Origins | None = None) -> Scores:
    matches = scored.matches
    patients = np.array(scored.patients)
    owners, kinds = list(patients[matches.nodule_scan]), ["scan"] * len(matches.nodules)
    if known:
        keys = [
            (matches.series[scan], round(float(position[0]), 2))
            for scan, position in zip(matches.nodule_scan, matches.nodules.position_mm, strict=True)
        ]
        kinds, owners = [known[key][0] for key in keys], [known[key][1] for key in keys]
        # Copies of one host are named for its patient, whom a folder of loose scans does not know.
        patients = np.array([host_of(series) for series in matches.series])
    is_false = matches.mark_fate == FALSE
    return Scores(
        np.concatenate([matches.nodule_score, scored.nodule_logits]),
        np.array(owners + [n.patient for n in scored.nodules]),
        np.array(kinds + [n.kind for n in scored.nodules]),
        np.concatenate([matches.nodules.value, [n.diameter_mm for n in scored.nodules]]),
        matches.predictions.value[is_false],
        patients[matches.mark_scan[is_false]],
        patients,
    )


def sensitivities(scores: Scores, chosen: np.ndarray, drawn: dict[str, int] | None = None) -> np.ndarray:
    """Of the chosen nodules at every rate; `drawn`: how often each patient counts, once where None.

    A rate's threshold lies at the false positive that would exceed it: nodules must score higher.
    """

    def weight(patients: np.ndarray) -> np.ndarray:
        return np.array([1 if drawn is None else drawn.get(p, 0) for p in patients])

    scans = weight(scores.scan_patients).sum()
    order = np.argsort(-scores.false, kind="stable")
    so_far = np.cumsum(weight(scores.false_patient[order]))
    counted = weight(scores.nodule_patient[chosen])
    if not scans or not counted.sum():
        return np.full(len(RATES), np.nan)
    found = []
    for rate in RATES:
        beyond = np.searchsorted(so_far, rate * scans, side="right")  # the first that is one too many
        cut = scores.false[order[beyond]] if beyond < len(order) else -np.inf
        found.append(float(counted[scores.nodule[chosen] > cut].sum() / counted.sum()))
    return np.array(found)


def resampled(scores: Scores, chosen: np.ndarray) -> np.ndarray:
    """[RESAMPLES, rates]; scans' patients and the others are drawn apart, so that there are always scans."""
    rng = np.random.default_rng(0)
    with_scans = sorted(set(scores.scan_patients))
    others = sorted(set(scores.nodule_patient) - set(with_scans))
    rows = []
    for _ in range(RESAMPLES):
        drawn: dict[str, int] = {}
        for group in (with_scans, others):
            for n in rng.integers(len(group), size=len(group)) if group else ():
                drawn[group[n]] = drawn.get(group[n], 0) + 1
        rows.append(sensitivities(scores, chosen, drawn))
    return np.array(rows)


def show(
    name: str,
    members: list[TrainedModel],
    held_out: list[HeldOut],
    average_over: str,
    known: Origins | None = None,
) -> Scores:
    scored = score_out_of_fold(members, held_out, average_over=average_over, device=choose_device("cpu"))
    scores = scores_of(scored, known)
    print(f"\n## {name}, averaged over {average_over}\n")
    scans = len(scores.scan_patients)
    hit = np.isfinite(scored.matches.nodule_score)
    print(f"{scans} scans, {scored.candidates / scans:.0f} candidates a scan, {len(scores.false)} false positives.")
    print(f"{hit.sum()} of {len(hit)} nodules in the scans are hit by a finding at threshold 0.\n")
    print("| measured on | nodules | patients | " + " | ".join(f"at {rate:g}" for rate in RATES) + " | CPM |")
    print("|---" * (len(RATES) + 4) + "|")
    kinds = sorted(set(scores.kind), key=lambda kind: (kind != "scan", kind))
    for kind in [*kinds, "all", "scan + chunk"]:
        chosen = np.array([kind == "all" or k in kind.split(" + ") for k in scores.kind], bool)
        if not chosen.any():
            continue
        values, repeats = sensitivities(scores, chosen), resampled(scores, chosen)
        low, high = interval(repeats.mean(axis=1))
        cells = []
        for n, value in enumerate(values):
            bounds = "" if RATES[n] != 1 else " ({:.3f}-{:.3f})".format(*interval(repeats[:, n]))
            cells.append(f"{value:.3f}{bounds}")
        cells.append(f"{values.mean():.3f} ({low:.3f}-{high:.3f})")
        size = f"{chosen.sum()} | {len(set(scores.nodule_patient[chosen]))}"
        print(f"| {kind} | {size} | {' | '.join(cells)} |")
    show_sizes(scores)
    show_scans(scored)
    calibration, basis = calibrate_out_of_fold(scored, average_over)
    print(
        f"\nPlatt's map: slope {calibration.slope:.3f}, offset {calibration.offset:.3f}; "
        + ", ".join(f"{k} {v:.4g}" for k, v in basis.items())
    )
    print("Operating points: " + ", ".join(f"{rate:g}: {cut:.4f}" for rate, cut in calibration.operating_points))
    if known is None:
        show_reliability(scored, calibration)
    return scores


def show_difference(first: Scores, second: Scores) -> None:
    """The first minus the second. Both have the same patients, so that their draws are the same."""
    print("\n| difference on | nodules | at 1 | CPM |\n|---|---|---|---|")
    for kind in ["all", *sorted(set(first.kind))]:
        chosen = [np.array([kind == "all" or k == kind for k in scores.kind], bool) for scores in (first, second)]
        values = [sensitivities(s, c) for s, c in zip((first, second), chosen, strict=True)]
        draws = [resampled(s, c) for s, c in zip((first, second), chosen, strict=True)]
        (value, drawn), at_1 = (pair[0] - pair[1] for pair in (values, draws)), RATES.index(1.0)
        cells = [
            f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
            for mean, (low, high) in (
                (value[at_1], interval(drawn[:, at_1])),
                (value.mean(), interval(drawn.mean(axis=1))),
            )
        ]
        print(f"| {kind} | {chosen[0].sum()} | {' | '.join(cells)} |")


def show_reliability(scored: OutOfFold, calibration: Calibration) -> None:
    """Findings in whole scans by their probability, and how many of them are nodules."""
    hits = scored.matches.nodule_score[np.isfinite(scored.matches.nodule_score)]
    logits = np.concatenate([hits, scored.false_positives])
    is_nodule = np.arange(len(logits)) < len(hits)
    probability = np.array([calibration.probability(float(x)) for x in logits])
    print("\n| probability | findings | mean probability | nodules among them |\n|---|---|---|---|")
    for low, high in pairwise(PROBABILITIES):
        chosen = (probability >= low) & (probability < high)
        if chosen.any():
            mean, share = probability[chosen].mean(), is_nodule[chosen].mean()
            print(
                f"| {low:g}-{min(high, 1):g} | {chosen.sum()} | {mean:.3f} | {is_nodule[chosen].sum()} ({share:.3f}) |"
            )


def show_sizes(scores: Scores) -> None:
    print("\n| diameter mm | nodules | at 1 | at 4 |\n|---|---|---|---|")
    for low, high in pairwise(SIZES_MM):
        chosen = (scores.diameter_mm >= low) & (scores.diameter_mm < high)
        if chosen.any():
            values = sensitivities(scores, chosen)
            print(
                f"| {low}-{high} | {chosen.sum()} | {values[RATES.index(1.0)]:.3f} | {values[RATES.index(4.0)]:.3f} |"
            )


def show_scans(scored: OutOfFold) -> None:
    """Each scan's nodules by rank among its own findings, and its part of the false positives."""
    matches = scored.matches
    false = np.sort(scored.false_positives)[::-1]
    cut = false[min(len(matches.series), len(false) - 1)] if len(false) else -np.inf
    print(
        "\n| scan | nodules | hit by a candidate | found at 1 FP a scan | false positives there | logits of nodules |"
    )
    print("|---" * 6 + "|")
    for n, series in enumerate(matches.series):
        own = matches.nodule_score[matches.nodule_scan == n]
        wrong = matches.predictions.value[(matches.mark_scan == n) & (matches.mark_fate == FALSE)]
        text = " ".join(f"{x:.1f}" for x in sorted(own, reverse=True))
        figures = (len(own), np.isfinite(own).sum(), (own > cut).sum(), (wrong > cut).sum(), text)
        print(f"| {series[-14:]} | " + " | ".join(map(str, figures)) + " |")


if __name__ == "__main__":
    main()
