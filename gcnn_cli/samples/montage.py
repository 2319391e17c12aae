"""A picture of training samples of every kind."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from gcnn_cli.files import make_folder
from gcnn_cli.samples.sample import KINDS, Sample

COLUMNS = 12
_WINDOW_HU = (-1000, 300)


def draw_montage(samples: list[Sample], path: Path, seed: int = 0) -> None:
    """Write a PNG with twelve random samples of each kind: the middle axial slice above the middle coronal one.

    In coronal slices the head is up. Slices that were not measured are dimmed; training fills them in.
    """
    rng = np.random.default_rng(seed)
    kinds = [(label, kind) for label in (1, 0) for kind in KINDS[label]]
    rows = [
        (kind, label, [samples[n] for n in rng.permutation(found)[:COLUMNS]])
        for label, kind in kinds
        if (found := [n for n, s in enumerate(samples) if (s.label, s.kind) == (label, kind)])
    ]
    figure = Figure(figsize=(COLUMNS, 2 * len(rows)), dpi=80)
    for row, (kind, label, chosen) in enumerate(rows):
        for column, sample in enumerate(chosen):
            cube = sample.hu.astype(float)
            cube[: sample.first] -= 400
            cube[sample.stop :] -= 400
            depth, height, _ = sample.sides
            for offset, picture in enumerate((cube[depth // 2], cube[::-1, height // 2])):
                place = (2 * row + offset) * COLUMNS + column + 1
                axes = figure.add_subplot(2 * len(rows), COLUMNS, place)
                axes.imshow(picture, cmap="gray", vmin=_WINDOW_HU[0], vmax=_WINDOW_HU[1])
                axes.set_axis_off()
                if column == 0 and offset == 0:
                    axes.set_zorder(1)  # the name reaches over the next picture
                    name = f"{kind} ({'nodule' if label else 'no nodule'})"
                    color = "#0b5cad" if label else "#c2571a"
                    axes.text(1, 5, name, fontsize=9, backgroundcolor="white", va="center", color=color)
    figure.subplots_adjust(0.002, 0.002, 0.998, 0.98, 0.02, 0.02)
    make_folder(path.parent)
    figure.savefig(path, format="png", metadata={"Software": "gcnn"})
