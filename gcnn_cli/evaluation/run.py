"""One run of `gcnn evaluate`: input -> figures, comparison with other predictions, check for leakage."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gcnn_cli.evaluation.evaluation import Evaluation, EvaluationConfig, compare_matches, evaluate_matches
from gcnn_cli.evaluation.exports import evaluation_data, write_evaluation
from gcnn_cli.evaluation.froc import Difference
from gcnn_cli.evaluation.inputs import EvaluationInput
from gcnn_cli.evaluation.leakage import Leakage, find_leakage
from gcnn_cli.evaluation.matching import MatchRule
from gcnn_cli.labels.frames import frame_warning


@dataclass(frozen=True)
class Weights:
    """The weights behind the predictions.

    provenance: as in the weights file
    proposals:  provenance of the network that proposed the candidates; None if unknown
    """

    name: str
    sha256: str
    provenance: Mapping[str, Any]
    proposals: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Other predictions for the same scans. difference: evaluated minus other"""

    name: str
    evaluation: Evaluation
    difference: Difference


@dataclass(frozen=True, eq=False)
class EvaluationRun:
    """Everything that `gcnn evaluate` prints and writes. weights: None if unknown"""

    inputs: EvaluationInput
    weights: Weights | None
    leakage: Leakage
    evaluation: Evaluation
    comparison: Comparison | None = None

    @property
    def name(self) -> str:
        """Name of the predictions in plots: their file, or else their weights."""
        file = self.inputs.files.get("predictions")
        return file.name if file else self.weights.name if self.weights else "predictions"

    def data(self) -> dict[str, Any]:
        """Return the content of froc.json."""
        weights = self.weights
        sources = {
            "weights": {"name": weights.name, "sha256": weights.sha256} if weights else None,
            **self.inputs.sources(),
            "leakage": {
                "checked": self.leakage.known,
                "series": list(self.leakage.series),
                "patients": list(self.leakage.patients),
                "text": str(self.leakage),
            },
        }
        return evaluation_data(self.evaluation, sources, self.comparison.difference if self.comparison else None)

    def write(self, folder: Path, *, overwrite: bool) -> None:
        """Write tables, plots and froc.json. Raises UsageError for existing files, OutputError."""
        others = [(self.comparison.name, self.comparison.evaluation)] if self.comparison else []
        write_evaluation(self.evaluation, folder, self.data(), others, name=self.name, overwrite=overwrite)


def run_evaluation(
    inputs: EvaluationInput,
    config: EvaluationConfig,
    weights: Weights | None = None,
    *,
    compare: Path | None = None,
    calibrate: bool = False,
    allow_unknown: bool = False,
    strict: bool = False,
) -> EvaluationRun:
    """Evaluate predictions.

    compare:       other predictions for the same scans
    calibrate:     measure reliability and fit Platt's map, on every mark, without a cap
    allow_unknown: drop predictions in scans that are not evaluated
    strict:        raise InputError unless the weights are known not to be trained on these scans and patients

    Raises InputError as reading, `match` and `evaluate_matches` do.
    """
    leakage = find_leakage(
        weights.provenance if weights else None,
        inputs.series,
        inputs.patients,
        proposals=weights.proposals if weights else None,
    )
    if strict:
        leakage.check()
    if warning := frame_warning(inputs.predictions.marks, inputs.nodules):
        inputs = replace(inputs, remarks=(*inputs.remarks, f"warning: {warning}"))
    matches = inputs.match(config.rule, allow_unknown=allow_unknown)
    uncapped = MatchRule(0, config.rule.hit_radius_mm)
    every_mark = inputs.match(uncapped, allow_unknown=allow_unknown) if calibrate else None
    evaluation = evaluate_matches(matches, config, every_mark=every_mark)
    comparison = None
    if compare:
        others = inputs.with_predictions(compare)
        inputs = replace(inputs, remarks=(*inputs.remarks, *others.remarks))
        other = others.match(config.rule, allow_unknown=allow_unknown)
        difference = compare_matches(matches, other, config)
        comparison = Comparison(compare.name, evaluate_matches(other, config), difference)
    return EvaluationRun(inputs, weights, leakage, evaluation, comparison)
