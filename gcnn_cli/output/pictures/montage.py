"""Reports as one PNG picture: three planes through each nodule, and maps of the lungs."""

import io
import warnings
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.patheffects import withStroke

from gcnn_cli import NOTICE
from gcnn_cli.detection.findings import Nodule, Report
from gcnn_cli.output.pictures.lung_map import WINDOW, LungMap, lung_maps
from gcnn_cli.output.pictures.views import View, nodule_views, to_gray
from gcnn_cli.scan.volume import Volume

MAX_PICTURED = 24

_CELL_IN = 1.5
_CAPTION_IN = 0.32
_MAP_IN = 3.0  # at most
_MARK = "#ffc53d"
_DPI = 150
_SCALE_BAR_MM = 10


def png_montage(report: Report, volume: Volume) -> bytes:
    """Return the picture as PNG on a white background. volume: the scan of the report."""
    pictured = report.nodules[:MAX_PICTURED]
    blocks = 1 if len(pictured) <= 4 else 2 if len(pictured) <= 10 else 3
    rows = -(-len(pictured) // blocks)
    width = max(blocks * (3 * _CELL_IN + 0.2) + 0.2, 6.0)
    maps = lung_maps(volume, pictured, report.lungs)
    sizes_mm = [(p.hu.shape[0] * p.pixel_mm, p.hu.shape[1] * p.pixel_mm) for p in maps]
    inch_per_mm = min(_MAP_IN / sizes_mm[0][0], (width - 0.5) / sum(wide for _, wide in sizes_mm))
    map_height, title_height = sizes_mm[0][0] * inch_per_mm + 0.15, 0.75
    height = title_height + map_height + rows * (_CELL_IN + _CAPTION_IN) + 0.25
    figure = Figure((width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)  # draws without a display

    def place(left: float, top: float, wide: float, high: float) -> Axes:
        """Return axes placed in inches from the top left corner."""
        axes = figure.add_axes((left / width, 1 - (top + high) / height, wide / width, high / height))
        axes.set_axis_off()
        return axes

    def write(left: float, top: float, text: str, size: float, **style: Any) -> None:
        # A $ in a file name does not start a formula.
        figure.text(left / width, 1 - top / height, text, fontsize=size, va="top", parse_math=False, **style)

    write(0.2, 0.12, _short(report.scan.source.series_uid, width), 9, weight="bold")
    write(0.2, 0.32, _summary(report, len(pictured)), 8)
    write(0.2, 0.5, NOTICE, 7, color="#565f6a")
    left = 0.2
    for projection, (rows_mm, columns_mm) in zip(maps, sizes_mm, strict=True):
        _draw_map(place(left, title_height, columns_mm * inch_per_mm, rows_mm * inch_per_mm), projection, pictured)
        left += columns_mm * inch_per_mm + 0.1
    for number, nodule in enumerate(pictured, start=1):
        block, row = divmod(number - 1, rows)
        left = 0.2 + block * (3 * _CELL_IN + 0.2)
        top = title_height + map_height + row * (_CELL_IN + _CAPTION_IN)
        write(left, top + 0.06, _caption(number, nodule), 7)
        for column, view in enumerate(nodule_views(volume, nodule)):
            side = _CELL_IN - 0.04
            _draw_view(place(left + column * _CELL_IN, top + 0.24, side, side), view, nodule)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names in scripts that the font lacks
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _summary(report: Report, pictured: int) -> str:
    found = len(report.nodules)
    shown = f", the first {pictured} shown" if pictured < found else ""
    noun = "nodule" if found == 1 else "nodules"
    return (
        f"{found or 'No'} {noun} at or above probability {report.threshold:.3g}{shown}"
        f" (weights {report.model.name}, group {report.model.group})"
    )


def _short(text: str, width_in: float) -> str:
    room = int(width_in * 13)
    return text if len(text) <= room else "…" + text[-room:]


def _caption(number: int, nodule: Nodule) -> str:
    return (
        f"{number}: slice {nodule.slice}, {nodule.diameter_mm:.1f} mm, probability {nodule.probability:.3f},"
        f" at ({', '.join(f'{v:.1f}' for v in nodule.position_mm)}) mm"
    )


def _draw_view(axes: Axes, view: View, nodule: Nodule) -> None:
    """Draw a view in mm from the top left corner of its field. The nodule lies in the middle."""
    rows, columns = view.hu.shape
    (top, left), field = view.corner_mm, view.field_mm
    _show(axes, to_gray(view.hu), (left, left + columns * view.pixel_mm[1], top + rows * view.pixel_mm[0], top))
    axes.set_xlim(0, field)
    axes.set_ylim(field, 0)
    ring = nodule.diameter_mm / 2 + 0.08 * field
    axes.add_patch(Circle((field / 2, field / 2), ring, fill=False, ec=_MARK, lw=0.8, ls=(0, (4, 3))))
    edge = [withStroke(linewidth=2.6, foreground="black")]
    bar = [0.05 * field, 0.05 * field + _SCALE_BAR_MM]
    axes.plot(bar, [0.94 * field] * 2, color="white", lw=1.5, solid_capstyle="butt", path_effects=edge)
    _label(axes, 0.05 * field, 0.91 * field, f"{_SCALE_BAR_MM} mm", "left", "bottom")
    _label(axes, 0.03 * field, 0.5 * field, view.letters[0], "left")
    _label(axes, 0.97 * field, 0.5 * field, view.letters[1], "right")
    _label(axes, 0.5 * field, 0.03 * field, view.plane, "center", "top")


def _draw_map(axes: Axes, projection: LungMap, nodules: tuple[Nodule, ...]) -> None:
    rows_mm, columns_mm = (n * projection.pixel_mm for n in projection.hu.shape)
    _show(axes, to_gray(projection.hu, WINDOW), (0, columns_mm, rows_mm, 0))
    for number, ((down, right), nodule) in enumerate(zip(projection.places, nodules, strict=True), start=1):
        ring = max(nodule.diameter_mm / 2 + 2, 6)
        axes.add_patch(Circle((right, down), ring, fill=False, ec=_MARK, lw=0.9))
        _label(axes, right + ring, down - ring + 2, str(number), "left", "bottom", _MARK)
    for letter, x, side in ((projection.letters[0], 4, "left"), (projection.letters[1], columns_mm - 4, "right")):
        _label(axes, x, rows_mm / 2, letter, side)


def _label(axes: Axes, x: float, y: float, text: str, side: str, height: str = "center", color: str = "white") -> None:
    """Write light letters with a dark edge, readable on lung and on bone."""
    edge = [withStroke(linewidth=1.5, foreground="black")]
    axes.text(x, y, text, color=color, fontsize=6, ha=side, va=height, path_effects=edge, clip_on=True)


def _show(axes: Axes, gray: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]", extent: tuple[float, ...]) -> None:
    left, right, bottom, top = extent
    axes.imshow(gray, "gray", vmin=0, vmax=255, extent=(left, right, bottom, top), interpolation="bilinear")
    axes.set_aspect("auto")  # the axes have the field's own shape
