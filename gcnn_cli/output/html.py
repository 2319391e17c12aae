"""Reports as one self-contained HTML page: no script, no network, with print and dark styles.

Pictures are the scan's own voxels as gray PNG in data URIs, which the browser scales to their size in mm.
Markers, letters and scale bars are SVG on top. All text from files is escaped, and the page's content security
policy forbids scripts and requests. The page holds no patient name or id: `Source` has none.
"""

import base64
import io
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gcnn_cli import NOTICE, __version__
from gcnn_cli.detection.findings import Nodule, Report
from gcnn_cli.output.pictures.lung_map import WINDOW, LungMap, lung_maps
from gcnn_cli.output.pictures.views import LUNG_WINDOW, View, neighboring_slices, nodule_views, to_gray
from gcnn_cli.output.rates import rate_text
from gcnn_cli.scan.volume import Volume

MAX_PICTURED = 100  # nodules with pictures; --threshold 0 reports hundreds

_SCALE_BAR_MM = 10
_RING_GAP_MM = 4.0  # between a nodule's edge and its marker, so that the marker hides nothing


def html_report(report: Report, volume: Volume) -> bytes:
    """Return the page in UTF-8. volume: the scan of the report."""
    text = resources.files("gcnn_cli.output").joinpath("report.html.jinja").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["rate_text"] = rate_text
    pictured = report.nodules[:MAX_PICTURED]
    page = environment.from_string(text).render(
        report=report,
        source=report.scan.source,
        size=" × ".join(str(n) for n in reversed(report.scan.shape_zyx)),
        spacing=" × ".join(f"{s:.4g}" for s in reversed(report.scan.spacing_zyx)),
        nodules=[(n, nodule) for n, nodule in enumerate(report.nodules, start=1)],
        pictured=[_pictures(volume, number, nodule) for number, nodule in enumerate(pictured, start=1)],
        maps=[_map(projection, pictured) for projection in lung_maps(volume, pictured, report.lungs)],
        window=LUNG_WINDOW,
        scale_bar_mm=_SCALE_BAR_MM,
        ring_gap_mm=_RING_GAP_MM,
        notice=NOTICE,
        version=__version__,
    )
    return page.encode("utf-8")


def _pictures(volume: Volume, number: int, nodule: Nodule) -> dict[str, Any]:
    ring = nodule.diameter_mm / 2 + _RING_GAP_MM
    return {
        "number": number,
        "nodule": nodule,
        "planes": [
            {"title": v.plane.capitalize(), "ring": ring, **picture_of(v)} for v in nodule_views(volume, nodule)
        ],
        "strip": [
            {"slice": s.number, "own": s.number == nodule.slice, **picture_of(s.view)}
            for s in neighboring_slices(volume, nodule)
        ],
    }


def picture_of(view: View) -> dict[str, Any]:
    """Return a picture with its place in the square field, in percent, for CSS."""
    rows, columns = view.hu.shape
    share = 100 / view.field_mm
    return {
        "plane": view.plane,
        "uri": _png_uri(to_gray(view.hu)),
        "top": view.corner_mm[0] * share,
        "left": view.corner_mm[1] * share,
        "height": rows * view.pixel_mm[0] * share,
        "width": columns * view.pixel_mm[1] * share,
        "field": view.field_mm,
        "letters": view.letters,
    }


def _map(projection: LungMap, nodules: tuple[Nodule, ...]) -> dict[str, Any]:
    rows, columns = projection.hu.shape
    return {
        "name": projection.name,
        "uri": _png_uri(to_gray(projection.hu, WINDOW)),
        "height": rows * projection.pixel_mm,
        "width": columns * projection.pixel_mm,
        "letters": projection.letters,
        "places": [
            {"number": number, "down": down, "right": right, "ring": max(nodule.diameter_mm / 2 + 2, 6)}
            for number, ((down, right), nodule) in enumerate(zip(projection.places, nodules, strict=True), start=1)
        ],
    }


def _png_uri(gray: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(gray).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
