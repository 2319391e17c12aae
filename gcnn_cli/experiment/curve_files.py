"""The data-efficiency experiment as files: curve.csv, curve.json, curve.png, curve.md."""

import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from gcnn_cli.experiment.curve_figures import BASELINE, CONTEXTS, Cell
from gcnn_cli.files import csv_text, write_bytes

_COLORS = ("#444444", "#0b5cad", "#c2571a", "#3b7d3a", "#7a4ea3", "#a8832b", "#b0307a")
_MARKERS = "osD^vP*"


def write_curve(cells: Sequence[Cell], folder: Path, about: dict[str, Any]) -> None:
    """Write all four files, replacing earlier ones. about: the command, the data, the date."""
    for name, content in (
        ("curve.csv", _csv(cells).encode()),
        ("curve.json", (json.dumps({"about": about, "cells": [_plain(c) for c in cells]}, indent=1) + "\n").encode()),
        ("curve.md", curve_text(cells, about).encode()),
        ("curve.png", _png(cells)),
    ):
        write_bytes(folder / name, content, overwrite=True)


def curve_text(cells: Sequence[Cell], about: dict[str, Any]) -> str:
    """Return the tables in Markdown, with their explanation."""
    lines = [f"`{about['command']}`", "", str(about["data"]), ""]
    for context in CONTEXTS:
        chosen = [cell for cell in cells if cell.context == context]
        if not chosen:
            continue
        lines += [
            f"**{context.capitalize()}**",
            "",
            "| samples | arm | seeds | CPM (95%) | ± seeds | AUC | minus plain (95%) | minus plain at 10 N (95%)"
            " | data factor (95%) | steps to plain's loss |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        lines += ["| " + " | ".join(_row(cell)) + " |" for cell in chosen]
        lines.append("")
    lines.append(
        "CPM: mean sensitivity at 1/8 to 8 false positives per scan. Intervals: paired bootstrap over the nodules'"
        " patients and the candidates of each scan. ±: standard deviation over seeds. Data factor: samples that the"
        " plain CNN needs for the same CPM, divided by the arm's own, by interpolation over log N; ≤ and ≥ mark the"
        " ends of the plain CNN's curve."
    )
    return "\n".join(lines) + "\n"


def _row(cell: Cell) -> tuple[str, ...]:
    return (
        str(cell.samples),
        cell.arm,
        str(cell.seeds),
        f"{cell.cpm:.3f} {_span(cell.interval)}",
        "-" if math.isnan(cell.seed_deviation) else f"{cell.seed_deviation:.3f}",
        f"{cell.auc:.4f}",
        _signed(cell.to_baseline, cell.to_baseline_interval),
        _signed(cell.to_tenfold, cell.to_tenfold_interval),
        _factor(cell),
        _steps(cell.steps_to_loss),
    )


def _steps(steps: float) -> str:
    if math.isnan(steps):
        return "-"
    return "never" if math.isinf(steps) else f"{steps:g}"


def _factor(cell: Cell) -> str:
    """Format the factor, marked if it is an end of the plain CNN's curve, beyond which nothing was measured."""
    if cell.arm == BASELINE or math.isnan(cell.data_factor):
        return "-"
    lowest, highest = cell.data_factor_range

    def shown(value: float) -> str:
        sign = "≤" if value <= lowest * (1 + 1e-9) else "≥" if value >= highest * (1 - 1e-9) else ""
        return f"{sign}{value:.1f}"

    low, high = cell.data_factor_interval
    return f"{shown(cell.data_factor)} ({shown(low)} to {shown(high)})"


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
    contexts = [context for context in CONTEXTS if any(cell.context == context for cell in cells)]
    figure = Figure(figsize=(5.2 * len(contexts), 4.4), dpi=130, layout="constrained")
    arms = sorted({cell.arm for cell in cells}, key=lambda arm: (arm != "trivial", arm))
    for column, context in enumerate(contexts):
        axes = figure.add_subplot(1, len(contexts), column + 1)
        for arm, color, marker in zip(arms, _COLORS * 2, _MARKERS * 2, strict=False):
            own = sorted((c for c in cells if c.arm == arm and c.context == context), key=lambda c: c.samples)
            if not own:
                continue
            samples = [cell.samples for cell in own]
            axes.plot(samples, [cell.cpm for cell in own], color=color, marker=marker, markersize=5, label=arm)
            low, high = zip(*(cell.interval for cell in own), strict=True)
            axes.fill_between(samples, low, high, color=color, alpha=0.12, linewidth=0)
        axes.set(xscale="log", xlabel="training samples, half nodules", title=context, ylim=(0, 1.02))
        ticks = sorted({cell.samples for cell in cells})
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        if column == 0:
            axes.set_ylabel("CPM on held-out patients")
            axes.legend(frameon=False, fontsize=8, loc="lower right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": "gcnn"})
    return buffer.getvalue()
