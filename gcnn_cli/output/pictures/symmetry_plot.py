"""Plot of the equivariance error of every element of a group."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_FLOOR = 1e-9  # stands for an error of 0 (the identity's), which a logarithmic axis cannot show


def error_plot(errors: Sequence[float], tolerance: float, title: str) -> bytes:
    """Return a PNG of the relative error by element on a logarithmic axis, with the tolerance as a line.

    An infinite error (the network returned NaN) is drawn as a cross at the top.
    """
    values = np.asarray(errors, float)
    finite = np.isfinite(values)
    top = max([10 * tolerance, *(10 * values[finite])])
    figure = Figure((max(4.5, 0.16 * len(values) + 2), 3), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    elements = np.arange(len(values))
    axes.set_yscale("log")
    within = finite & (values <= tolerance)
    for chosen, color, mark in (
        (within, "#0b57b0", "o"),
        (finite & ~within, "#b3261e", "o"),
        (~finite, "#b3261e", "x"),
    ):
        chosen = chosen & (values > 0)
        heights = np.where(finite, np.maximum(values, _FLOOR), top / 2)[chosen]
        axes.plot(elements[chosen], heights, mark, color=color, markersize=4)
        axes.vlines(elements[chosen], _FLOOR / 3, heights, color=color, linewidth=0.8)
    for element in elements[values == 0]:
        axes.text(element, _FLOOR / 2, "0", ha="center", fontsize=8, color="#0b57b0")
    axes.axhline(tolerance, color="#565f6a", linestyle="--", linewidth=1)
    axes.text(len(values) - 0.5, tolerance * 1.2, "allowed", ha="right", fontsize=8, color="#565f6a")
    axes.set_ylim(_FLOOR / 3, top)
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.set_xlabel("element of the group (0: identity)")
    axes.set_ylabel("largest relative change of the score")
    axes.set_title(title, fontsize=10, parse_math=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
