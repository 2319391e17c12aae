"""A follow-up as one self-contained page: both dates side by side, without scripts, as the report's page.

The pictures of a nodule show the same place on both dates: where a nodule is missing, the place where it would lie.
"""

from importlib import resources
from typing import Any

import jinja2
import numpy as np

from gcnn_cli import NOTICE, __version__
from gcnn_cli.detection.findings import Nodule
from gcnn_cli.followup.matching import Pair
from gcnn_cli.followup.run import Exam, FollowUp
from gcnn_cli.followup.words import change_words, doubling_words, status_words
from gcnn_cli.output.html import picture_of
from gcnn_cli.output.pictures.views import LUNG_WINDOW, field_mm, nodule_views

MAX_PICTURED = 60
_RING_GAP_MM = 4.0
_SCALE_BAR_MM = 10


def follow_page(made: FollowUp) -> bytes:
    """Return the page in UTF-8."""
    text = resources.files("gcnn_cli.followup").joinpath("page.html.jinja").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(text).render(
        made=made,
        exams=[("Before", made.prior), ("Now", made.current)],
        rows=[_row(number, pair) for number, pair in enumerate(made.pairs, start=1)],
        pictured=[_pictures(made, number, pair) for number, pair in enumerate(made.pairs[:MAX_PICTURED], start=1)],
        window=LUNG_WINDOW,
        scale_bar_mm=_SCALE_BAR_MM,
        notice=NOTICE,
        version=__version__,
    )
    return page.encode("utf-8")


def _row(number: int, pair: Pair) -> dict[str, Any]:
    return {
        "number": number,
        "status": status_words(pair),
        "before": pair.prior,
        "now": pair.current,
        "change": change_words(pair.growth),
        "doubling": doubling_words(pair.growth),
        "changed": bool(pair.growth and pair.growth.is_change),
    }


def _pictures(made: FollowUp, number: int, pair: Pair) -> dict[str, Any]:
    widest = max((n for n in (pair.prior, pair.current) if n), key=field_mm)
    sides = []
    for title, exam, nodule in (("Before", made.prior, pair.prior), ("Now", made.current, pair.current)):
        placed = _placed(nodule, pair, exam, widest)
        sides.append(
            {
                "title": title,
                "nodule": nodule,
                "planes": [
                    {"title": view.plane.capitalize(), "ring": _ring(nodule), **picture_of(view)}
                    for view in nodule_views(exam.volume, placed)
                ],
            }
        )
    return {**_row(number, pair), "sides": sides, "distance": pair.distance_mm}


def _placed(nodule: Nodule | None, pair: Pair, exam: Exam, widest: Nodule) -> Nodule:
    """Return what the pictures are centered on, with one field of view for both dates."""
    position = nodule.position_mm if nodule else pair.place_mm
    assert position is not None  # a missing nodule has a place
    index = exam.volume.index_zyx(np.array(position))
    at = int(np.clip(np.round(index[0]), 0, exam.volume.shape[0] - 1))
    return Nodule(position, (float(index[0]), float(index[1]), float(index[2])), 0.0, widest.diameter_mm, 1.0, at + 1)


def _ring(nodule: Nodule | None) -> float:
    """Return the radius of the marker in mm; 0, no marker, where the nodule is missing."""
    return nodule.diameter_mm / 2 + _RING_GAP_MM if nodule else 0.0
