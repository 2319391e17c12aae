"""The parts of `gpu.py`: what is measured on a device, each as the rows of a table."""

import resource
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import gpu_feeds
import numpy as np
import torch
from gpu_precisions import computing_in, precisions_of, scorer_in
from timing import in_turn, seconds

from gcnn_cli.cohort.jobs import make_job, run_here
from gcnn_cli.cohort.request import Request
from gcnn_cli.cohort.scans import Scan
from gcnn_cli.detection.detector import Detector
from gcnn_cli.detection.findings import Candidate, Nodule
from gcnn_cli.detection.lungs import segment_lungs
from gcnn_cli.detection.patches import patch_batches
from gcnn_cli.detection.pipeline import detect
from gcnn_cli.detection.proposals import load_proposer
from gcnn_cli.network.devices import precision_name
from gcnn_cli.network.weights import TrainedModel
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.resample import resample
from gcnn_cli.scan.volume import Volume
from gcnn_cli.training.augment import Chances, make_batch
from gcnn_cli.training.planning import noise_samples, step_seconds
from gcnn_cli.training.recipe import Recipe

Rows = list[dict[str, Any]]
CPU = torch.device("cpu")
_MATCH_MM = 2.0  # findings farther apart are two


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    random: int
    batches: tuple[int, ...]
    patches: int
    scans: int
    training_batches: tuple[int, ...]
    steps: int
    rounds: int


FULL = Sizes(256, (1, 8, 32, 64, 128, 256, 512, 1024), 2048, 12, (32, 64, 128, 256), 20, 3)
SMALL = Sizes(4, (2, 4), 4, 2, (4,), 2, 1)


@dataclass(frozen=True)
class Bench:
    """One scan and one model on the device, with its sizes."""

    device: torch.device
    model: TrainedModel
    scan: Path
    recipe: Recipe
    sizes: Sizes

    @cached_property
    def volume(self) -> Volume:
        return read_volume(self.scan)

    @cached_property
    def grid(self) -> Volume:
        """The scan on the grid of the scoring network."""
        return resample(self.volume, self.model.input.spacing_mm)

    @cached_property
    def candidates(self) -> list[Candidate]:
        """Those of the CPU in float32."""
        detector = self.detector(CPU, bfloat16=False)
        grid = resample(self.volume, detector.spacing_mm)
        lungs = segment_lungs(grid, detector.config.lungs)
        return detector.proposer.propose(grid, lungs, detector.config.proposals)

    @property
    def positions(self) -> list[tuple[float, float, float]]:
        return [candidate.position_mm for candidate in self.candidates]

    def detector(self, device: torch.device, *, bfloat16: bool | None = None) -> Detector:
        """The detector in a precision; default: the device's own."""
        names = {True: "bfloat16", False: "float32", None: precision_name(device)}
        scorer = scorer_in(names[bfloat16], self.model, device)
        return Detector(self.model, scorer, load_proposer(device, bfloat16=bfloat16))


def scores(bench: Bench) -> Rows:
    """The largest difference of a score, which is a probability, by precision."""
    spec, rows = bench.model.input, []
    generator = torch.Generator().manual_seed(0)
    random = 2 * torch.rand((bench.sizes.random, 1, *spec.sides), generator=generator) - 1
    patches = {
        "candidates of the scan": torch.cat([*patch_batches(bench.grid, bench.positions, spec, 32)]),
        "random": random,
    }
    for name, batch in patches.items():
        exact = scorer_in("float32", bench.model, CPU).score(batch.split(32))
        for precision in precisions_of(bench.device):
            with computing_in(precision):
                logits = scorer_in(precision, bench.model, bench.device).score(batch.split(32))
            moved = np.abs(_probabilities(bench, logits) - _probabilities(bench, exact))
            rows.append(
                {
                    "patches": name,
                    "number": len(batch),
                    "precision": precision,
                    "largest difference in score": float(moved.max()),
                    "in logit": float(np.abs(logits - exact).max()),
                    "scores off by more than 0.01": int((moved > 0.01).sum()),
                }
            )
    return rows


def _probabilities(bench: Bench, logits: np.ndarray) -> np.ndarray:
    return np.array([bench.model.calibration.probability(float(logit)) for logit in logits])


def findings(bench: Bench) -> Rows:
    """Nodules of a whole detection: none may be lost, moved by 0.1 mm or have another score by 0.01."""
    threshold = bench.model.calibration.threshold
    expected = detect(bench.volume, bench.detector(CPU, bfloat16=False), threshold=0.0).nodules
    rows = []
    precisions = [name for name in precisions_of(bench.device) if name in ("float32", "bfloat16")]
    for precision in precisions:
        bfloat16 = precision == "bfloat16"
        found = detect(bench.volume, bench.detector(bench.device, bfloat16=bfloat16), threshold=0.0).nodules
        sides = [(expected, found), (found, expected)]
        pairs = [(n, _nearest(n, other)) for one, other in sides for n in one if n.probability >= threshold]
        met = [(a, b) for a, b in pairs if b is not None]
        rows.append(
            {
                "precision": precision,
                "nodules": sum(n.probability >= threshold for n in found),
                "of the CPU": sum(n.probability >= threshold for n in expected),
                "without a counterpart": len(pairs) - len(met),
                "largest shift, mm": max((_distance(a, b) for a, b in met), default=0.0),
                "largest difference in score": max((abs(a.probability - b.probability) for a, b in met), default=0.0),
            }
        )
    return rows


def _distance(a: Nodule, b: Nodule) -> float:
    return float(np.linalg.norm(np.subtract(a.position_mm, b.position_mm)))


def _nearest(nodule: Nodule, others: tuple[Nodule, ...]) -> Nodule | None:
    near = min(others, key=lambda other: _distance(nodule, other), default=None)
    return near if near is not None and _distance(nodule, near) < _MATCH_MM else None


def throughput(bench: Bench) -> Rows:
    """Patches of noise from the host's memory to their scores in the host's memory."""
    patches = torch.randn(bench.sizes.patches, 1, *bench.model.input.sides)
    rows = []
    for precision in precisions_of(bench.device):
        scorer = scorer_in(precision, bench.model, bench.device)
        for size in bench.sizes.batches:
            few = patches[: max(size, min(len(patches), 16 * size))]
            forget_peak(bench.device)
            with computing_in(precision):
                times = in_turn([lambda s=scorer, p=few, n=size: s.score(p.split(n))], bench.sizes.rounds)
            rates = len(few) / times[:, 0]
            rows.append(
                {
                    "precision": precision,
                    "patches per batch": size,
                    "patches/s": float(np.median(rates)),
                    "range": [float(rates.min()), float(rates.max())],
                    "largest memory, GB": peak_gb(bench.device),
                }
            )
    return rows


def scans(bench: Bench) -> Rows:
    """Whole scans, from reading to rendered files, in one process; then the scoring of one scan by its feed."""
    detector = bench.detector(bench.device)
    request = Request(("csv", "json"), Path("out"), bench.model.calibration.threshold)  # rendered, but not written
    batch = [make_job(Scan(bench.scan, "scan"), request, n, alone=False) for n in range(bench.sizes.scans)]
    run = run_here(detector, lambda _: lambda _: None)
    for _, result in run(batch[:1]):  # warms up
        if result.failure:
            raise result.failure.error
    forget_peak(bench.device)
    taken = seconds(lambda: [*run(batch)])
    rows = [_rate("whole scans, from reading to rendering", len(batch), taken, bench.device)]
    positions = bench.positions
    forms: dict[str, Callable[[], object]] = {
        name: lambda feed=feed: detector.scorer.score(
            feed(bench.grid, positions, bench.model.input, detector.config.batch_size, bench.device)
        )
        for name, feed in gpu_feeds.FEEDS.items()
    }
    times = in_turn(forms.values(), bench.sizes.rounds)
    what = f"scoring of {len(positions)} candidates, "
    return rows + [
        _rate(what + name, 1, float(np.median(column)), bench.device)
        for name, column in zip(forms, times.T, strict=True)
    ]


def _rate(what: str, count: int, taken: float, device: torch.device) -> dict[str, Any]:
    return {
        "what": what,
        "seconds": taken / count,
        "scans per hour": 3600 * count / taken,
        "largest memory, GB": peak_gb(device),
    }


def training(bench: Bench) -> Rows:
    """Steps on noise with the recipe's network, in the precision of a training on this device."""
    rows = []
    for size in bench.sizes.training_batches:
        recipe = replace(bench.recipe, train=replace(bench.recipe.train, batch_size=size))
        forget_peak(bench.device)
        step_s = step_seconds(recipe, bench.device, bench.sizes.steps)
        samples, rng = noise_samples(recipe), np.random.default_rng(0)
        batch = [samples[n % 2] for n in range(size)]
        making = in_turn(
            [lambda r=recipe, b=batch, g=rng: make_batch(b, r.train.input, r.train.augment, Chances(), g)],
            bench.sizes.rounds,
        )
        rows.append(
            {
                "precision": precision_name(bench.device),
                "patches per batch": size,
                "patches/s": size / step_s,
                "share of making the batch": float(np.median(making)) / step_s,
                "largest memory, GB": peak_gb(bench.device),
            }
        )
    return rows


def forget_peak(device: torch.device) -> None:
    """Start to count a GPU's memory anew."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_gb(device: torch.device) -> float:
    """The most memory held at once: a GPU's since `forget_peak`, or this process's since its start."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


PARTS: dict[str, Callable[[Bench], Rows]] = {
    "scores": scores,
    "findings": findings,
    "throughput": throughput,
    "scans": scans,
    "training": training,
}
