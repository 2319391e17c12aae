"""The samples of an experiment: what each seed trains on, validates on and is tested on.

With folds in the recipe, each seed holds out the next fold of the patients, so that over the seeds every nodule is
tested by networks that have not seen its patient. Scans held out by name are tested by every seed. Validation, which
decides when a training ends, takes a part of the training's patients and candidates, never the test's.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from gcnn_cli.errors import InputError
from gcnn_cli.experiment.results import read_json, test_path, write_json
from gcnn_cli.files import make_folder
from gcnn_cli.samples.prepare import Prepared
from gcnn_cli.samples.sample import Sample
from gcnn_cli.samples.split import SplitConfig, is_held_out
from gcnn_cli.training.checkpoint import fingerprint

# Of a test scan. Detection scores as many candidates; more transplants would be more copies of the same nodules.
MOST = {"candidate": 300, "transplant": 150}
_WATCHED_SHARE = 0.1  # of a fold's training samples
OWN_SURROUNDINGS = ("stack", "cube", "chunk", "mark")  # nodules that were not transplanted


@dataclass(frozen=True)
class Split:
    """Training samples, the validation set of a seed's trainings, and its test set.

    fold: the fold held out, from 1; 0 without folds
    """

    training: list[Sample]
    validation: list[Sample]
    test: list[Sample]
    fingerprint: str
    fold: int = 0


def fold_of_seed(split: SplitConfig, seed: int) -> int:
    """Return the fold that a seed holds out, from 1; 0 without folds."""
    return seed % split.folds + 1 if split.folds else 0


def splits_by_fold(prepare: Callable[[SplitConfig], Prepared], split: SplitConfig) -> Callable[[int], Split]:
    """Return a function from a seed to its split. The samples of one fold are in memory at a time."""

    @lru_cache(maxsize=1)
    def of_fold(fold: int) -> Split:
        held = replace(split, fold=fold)
        return split_samples(prepare(held), held)

    return lambda seed: of_fold(fold_of_seed(split, seed))


def split_samples(prepared: Prepared, split: SplitConfig) -> Split:
    """Split the samples. Raises InputError if the test set lacks nodules or candidates of labeled scans.

    With folds all that is held out is for the test. Without them half of the held-out patients of whom there are
    cut-outs alone are validated on. The others, and all patients with scans, are tested on.
    """
    if split.folds:
        apart = [_is_watched(sample, n, split.seed + 1) for n, sample in enumerate(prepared.training)]
        training = [s for s, out in zip(prepared.training, apart, strict=True) if not out]
        watched = [s for s, out in zip(prepared.training, apart, strict=True) if out]
        test = prepared.validation
    else:
        training = prepared.training
        held = prepared.validation
        tested = {s.patient for s in held if s.kind in ("candidate", "mark")}  # of the scans, which test
        patients = {s.patient for s in held if s.patient not in tested and is_held_out(s.patient, 0.5, split.seed + 1)}
        watched = [s for s in held if s.patient in patients and s.kind not in ("transplant", "sham")]
        test = [s for s in held if s.patient not in patients]
    test = _measured(test)
    kinds = {s.kind for s in test}
    if kinds.isdisjoint(OWN_SURROUNDINGS) or "candidate" not in kinds:
        raise InputError("the test set needs held-out nodules and a held-out labeled scan; see --hold-out")
    described = [(s.kind, s.patient, s.series, s.label) for s in (*training, *watched, *test)]
    return Split(training, watched, test, fingerprint(described, prepared.origin), split.fold)


def _is_watched(sample: Sample, number: int, seed: int) -> bool:
    """Return True for a sample to validate on: all of a patient's cut-outs and transplants, single candidates."""
    if sample.kind in ("candidate", "sham"):
        return is_held_out(str(number), _WATCHED_SHARE, seed)
    return is_held_out(sample.patient, _WATCHED_SHARE, seed)


def _measured(samples: list[Sample]) -> list[Sample]:
    """Return the samples to test on: of each scan the first, `MOST` of a kind. Candidates come strongest first."""
    counts: Counter[tuple[str, str]] = Counter()
    kept = []
    for sample in samples:
        counts[sample.kind, sample.series] += 1
        if counts[sample.kind, sample.series] > MOST.get(sample.kind, len(samples)):
            continue
        if sample.kind != "sham" and "beside" not in sample.kind:  # neither nodule nor candidate: not measured
            kept.append(sample)
    return kept


def describe_test(split: Split) -> dict[str, Any]:
    """Return label, kind, patient, series, diameter and place of each test sample, in the order of the logits."""
    return {
        "label": [s.label for s in split.test],
        "kind": [s.kind for s in split.test],
        "patient": [s.patient for s in split.test],
        "series": [s.series for s in split.test],
        "diameter_mm": [None if math.isnan(s.diameter_mm) else round(s.diameter_mm, 2) for s in split.test],
        "place": [s.place for s in split.test],
    }


def write_test(split: Split, folder: Path) -> None:
    """Describe the test set beside the results. Raises InputError if the folder holds that of another one."""
    make_folder(folder)
    path, described = test_path(folder, split.fold), describe_test(split)
    if path.is_file() and read_json(path) != described:
        raise InputError(f"{path}: describes another test set; hold out the same patients, or use another --out")
    write_json(path, described)
