"""The data-efficiency experiment as files: curve.csv, curve.json, curve.png, curve.md."""

import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gcnn_cli.experiment.curve_figures import BASELINE, CONTEXTS, Cell, Stratum
from gcnn_cli.experiment.factors import LIMIT
from gcnn_cli.experiment.measures import MEASURES
from gcnn_cli.files import csv_text, write_bytes

_COLORS = ("#444444", "#0b5cad", "#c2571a", "#3b7d3a", "#7a4ea3", "#a8832b", "#b0307a")
_MARKERS = "osD^vP*"

# CPM by training samples in Winkels & Cohen (2018, Figure 4): other data, other patches, a reference only.
ARTICLE = {"trivial": {30: 0.252, 300: 0.550, 3000: 0.791}, "O": {30: 0.562, 300: 0.767, 3000: 0.830}}
_DASHES = {"trivial": ":", "O": "--"}


def write_curve(cells: Sequence[Cell], strata: Sequence[Stratum], folder: Path, about: dict[str, Any]) -> None:
    """Write all four files, replacing earlier ones. about: the command, the data, the date."""
    content = {"about": about, "cells": [_plain(c) for c in cells], "strata": [asdict(s) for s in strata]}
    for name, data in (
        ("curve.csv", _csv(cells).encode()),
        ("curve.json", (json.dumps(content, indent=1) + "\n").encode()),
        ("curve.md", curve_text(cells, strata, about).encode()),
        ("curve.png", _png(cells)),
    ):
        write_bytes(folder / name, data, overwrite=True)


def curve_text(cells: Sequence[Cell], strata: Sequence[Stratum], about: dict[str, Any]) -> str:
    """Return the tables in Markdown, with their explanation."""
    lines = [*(f"`{command}`" for command in about["commands"]), "", _about(about), ""]
    for budget in dict.fromkeys(cell.budget for cell in cells):
        for context in CONTEXTS:
            chosen = [c for c in cells if (c.context, c.budget) == (context, budget)]
            if chosen:
                after = f", after {budget} CPU seconds of training" if budget else ""
                lines += [
                    f"**{context.capitalize()}{after}**",
                    "",
                    *_score_table(chosen),
                    "",
                    *_factor_table(chosen),
                    "",
                ]
    lines += _strata_tables(strata)
    lines.append(
        "CPM: mean sensitivity at 1/8 to 8 false positives per scan. Intervals: 95 %, paired bootstrap over the"
        " patients of the nodules, the patients of the scans with false positives, and the seeds; with few seeds and"
        " few such scans they are too narrow. ±: standard"
        " deviation over seeds. Data factor: samples that the plain CNN needs for the same score, divided by the arm's"
        " own, by interpolation over log N, and by power laws through all points; ≤ and ≥ mark the ends of what was"
        " measured. Reaches 10 N: share of resamples in which the arm with N samples is at least as good as the plain"
        " CNN with 10 N."
    )
    return "\n".join(lines) + "\n"


def _about(about: dict[str, Any]) -> str:
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in about["test"].items())
    precision = ", ".join(f"{count} in {name}" for name, count in about["precision"].items())
    return (
        f"Each network is tested on patients and scans that it was neither trained nor chosen on; together these have"
        f" {kinds} samples, with false candidates in {about['test_scans']} scans. {about['trainings']} trainings"
        f" ({precision}), {about['training_hours']} hours of steps."
    )


def _score_table(cells: Sequence[Cell]) -> list[str]:
    rows = [
        "| samples | arm | parameters | seeds | " + " | ".join(f"{m} (95 %) ± seeds" for m in MEASURES) + " | steps |"
    ]
    rows.append("|" + "---|" * (5 + len(MEASURES)))
    for key in dict.fromkeys((c.samples, c.arm) for c in cells):
        own = {c.measure: c for c in cells if (c.samples, c.arm) == key}
        first = own[MEASURES[0]]
        scores = [f"{own[m].value:.3f} {_span(own[m].interval)}{_deviation(own[m])}" for m in MEASURES]
        parts = [f"{key[0]:,}", key[1], f"{first.parameters:,}", str(first.seeds), *scores, f"{first.steps:g}"]
        rows.append("| " + " | ".join(parts) + " |")
    return rows


def _factor_table(cells: Sequence[Cell]) -> list[str]:
    rows = [
        "| samples | arm | by | minus plain (95 %) | minus plain at 10 N (95 %) | reaches 10 N | data factor (95 %)"
        " | by power laws (95 %) | steps to plain's loss |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        if cell.arm == BASELINE:
            continue
        fit = "-" if math.isnan(cell.fitted) else f"{_limited(cell.fitted)} {_limits(cell.fitted_interval)}"
        parts = [
            f"{cell.samples:,}",
            cell.arm,
            cell.measure,
            _signed(cell.to_plain, cell.to_plain_interval),
            _signed(cell.to_tenfold, cell.to_tenfold_interval),
            "-" if math.isnan(cell.reaches_tenfold) else f"{cell.reaches_tenfold:.2f}",
            _factor(cell),
            fit,
            _steps(cell.steps_to_loss),
        ]
        rows.append("| " + " | ".join(parts) + " |")
    return rows


def _strata_tables(strata: Sequence[Stratum]) -> list[str]:
    """Return one table for each context: sensitivity at one false positive per scan, by size and place."""
    lines: list[str] = []
    for context in dict.fromkeys(s.context for s in strata):
        own = [s for s in strata if s.context == context]
        parts = list(dict.fromkeys((s.part, s.nodules) for s in own))
        lines += [
            f"**{context.capitalize()}: sensitivity at 1 false positive per scan, by size and place**",
            "",
            "| samples | arm | " + " | ".join(f"{part} ({count})" for part, count in parts) + " |",
            "|" + "---|" * (2 + len(parts)),
        ]
        for key in dict.fromkeys((s.samples, s.arm) for s in own):
            values = {s.part: s.values[MEASURES.index("at 1 FP")] for s in own if (s.samples, s.arm) == key}
            lines.append(f"| {key[0]:,} | {key[1]} | " + " | ".join(f"{values[p]:.3f}" for p, _ in parts) + " |")
        lines.append("")
    return lines


def _deviation(cell: Cell) -> str:
    return "" if math.isnan(cell.deviation) else f" ± {cell.deviation:.3f}"


def _limited(value: float) -> str:
    return f"≥{LIMIT:g}" if value >= LIMIT else f"≤{1 / LIMIT:g}" if value <= 1 / LIMIT else _ratio(value)


def _ratio(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _limits(values: tuple[float, float]) -> str:
    return f"({_limited(values[0])} to {_limited(values[1])})"


def _steps(steps: float) -> str:
    if math.isnan(steps):
        return "-"
    return "never" if math.isinf(steps) else f"{steps:g}"


def _factor(cell: Cell) -> str:
    """Format the factor, marked if it is an end of the plain CNN's curve, beyond which nothing was measured."""
    if cell.arm == BASELINE or math.isnan(cell.factor):
        return "-"
    lowest, highest = cell.factor_range

    def shown(value: float) -> str:
        sign = "≤" if value <= lowest * (1 + 1e-9) else "≥" if value >= highest * (1 - 1e-9) else ""
        return f"{sign}{_ratio(value)}"

    low, high = cell.factor_interval
    return f"{shown(cell.factor)} ({shown(low)} to {shown(high)})"


def _span(interval: tuple[float, float], form: str = ".3f") -> str:
    return f"({interval[0]:{form}} to {interval[1]:{form}})"


def _signed(value: float, interval: tuple[float, float]) -> str:
    return "-" if math.isnan(value) else f"{value:+.3f} {_span(interval, '+.3f')}"


def _plain(cell: Cell) -> dict[str, Any]:
    """Return the cell as JSON values: null for NaN, and -1 for steps that were never reached."""
    values = asdict(cell)
    values["steps_to_loss"] = -1 if math.isinf(cell.steps_to_loss) else cell.steps_to_loss
    return {key: [_finite(x) for x in v] if isinstance(v, tuple) else _finite(v) for key, v in values.items()}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _csv(cells: Sequence[Cell]) -> str:
    names = [f.name for f in fields(Cell)]
    header = [
        part
        for name in names
        for part in ((f"{name}_low", f"{name}_high") if name.endswith(("interval", "range")) else (name,))
    ]
    rows = []
    for cell in cells:
        row: list[Any] = []
        for name in names:
            value = getattr(cell, name)
            row += [f"{v:.6g}" for v in value] if isinstance(value, tuple) else [value]
        rows.append([f"{v:.6g}" if isinstance(v, float) else v for v in row])
    return csv_text(header, rows)


def _png(cells: Sequence[Cell]) -> bytes:
    """Draw CPM against samples at the end of training, one panel for each context, with bands of the intervals."""
    shown = [c for c in cells if c.measure == "CPM" and not c.budget]
    contexts = [context for context in CONTEXTS if any(cell.context == context for cell in shown)]
    figure = Figure(figsize=(5.2 * len(contexts), 4.4), dpi=130, layout="constrained")
    arms = sorted({cell.arm for cell in shown}, key=lambda arm: (arm != BASELINE, arm))
    for column, context in enumerate(contexts):
        axes = figure.add_subplot(1, len(contexts), column + 1)
        for arm, color, marker in zip(arms, _COLORS * 2, _MARKERS * 2, strict=False):
            own = sorted((c for c in shown if c.arm == arm and c.context == context), key=lambda c: c.samples)
            if not own:
                continue
            samples = [cell.samples for cell in own]
            axes.plot(samples, [cell.value for cell in own], color=color, marker=marker, markersize=5, label=arm)
            low, high = zip(*(cell.interval for cell in own), strict=True)
            axes.fill_between(samples, low, high, color=color, alpha=0.1, linewidth=0)
        for arm, scores in ARTICLE.items():
            axes.plot(
                [*scores],
                [*scores.values()],
                color="#999999",
                linestyle=_DASHES[arm],
                linewidth=1,
                label=f"{arm}, article",
            )
        axes.set(xscale="log", xlabel="training samples, half nodules", title=context, ylim=(0, 1.02))
        ticks = sorted({cell.samples for cell in shown})
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        if column == 0:
            axes.set_ylabel("CPM on held-out patients")
            axes.legend(frameon=False, fontsize=8, loc="lower right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": "gcnn"})
    return buffer.getvalue()
