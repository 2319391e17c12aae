"""Branching trees that fill a lung: arteries, veins, and the airways that run along the arteries.

A tree is grown from its root to targets spread over the lung: the targets are split in two by their
longest extent as seen from the root, a branch runs part of the way to each half, and so on. A branch
that feeds n targets has radius r0 · n^(1/3.1), close to Murray's cubic law.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.phantom.canvas import Point

_MURRAY = 3.1
_PIECES = 3  # straight pieces of one curved branch


@dataclass(frozen=True, eq=False)
class Piece:
    """A straight piece of a branch: from `start` to `end` in mm, with its radius at both."""

    start: Point
    end: Point
    radius_start: float
    radius_end: float


def grow_tree(root: Point, targets: NDArray[Any], root_radius_mm: float, rng: np.random.Generator) -> list[Piece]:
    """Return the pieces from the root to every target [N, 3]; the radius falls from the root's to 0.2-0.4 mm."""
    unit = root_radius_mm / len(targets) ** (1 / _MURRAY)
    pieces: list[Piece] = []
    heading = targets.mean(axis=0) - root
    todo = [(root, heading, targets, root_radius_mm)]
    while todo:
        start, heading, group, radius = todo.pop()
        own = unit * len(group) ** (1 / _MURRAY)
        if len(group) == 1:
            pieces += _curve(start, group[0], heading, radius, 0.8 * own, rng)
            continue
        reach = rng.uniform(0.28, 0.5) if len(group) > 3 else rng.uniform(0.4, 0.7)
        fork = start + reach * (group.mean(axis=0) - start)
        pieces += _curve(start, fork, heading, min(radius, 1.15 * own), own, rng)
        for half in _split(fork, group, rng):
            todo.append((fork, fork - start, half, own))
    return pieces


def beside(pieces: list[Piece], least_radius_mm: float) -> list[Piece]:
    """Return airways beside the arteries thicker than the limit; their radii are those of the lumen."""
    airways = []
    for piece in pieces:
        if piece.radius_end < least_radius_mm:
            continue
        # To the front and the middle of the artery, as bronchi mostly lie.
        away = np.cross(piece.end - piece.start, (0.3, 1.0, 0.5))
        away /= max(float(np.linalg.norm(away)), 1e-6)
        start = piece.start + away * (1.9 * piece.radius_start + 0.6)
        end = piece.end + away * (1.9 * piece.radius_end + 0.6)
        airways.append(Piece(start, end, 0.85 * piece.radius_start, 0.85 * piece.radius_end))
    return airways


def _split(fork: Point, group: NDArray[Any], rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    offset = group - group.mean(axis=0)
    values, vectors = np.linalg.eigh(offset.T @ offset)
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), range(3)])  # LAPACK's signs differ by processor
    lengths = np.sqrt(np.maximum(values, 0))
    # A random mixture of the two longest extents keeps the halves from looking alike.
    axis = vectors[:, 2] * lengths[2] + vectors[:, 1] * lengths[1] * rng.uniform(-0.8, 0.8)
    order = np.argsort(offset @ axis, kind="stable")
    cut = min(max(1, round(len(group) * rng.uniform(0.3, 0.7))), len(group) - 1)
    return group[order[:cut]], group[order[cut:]]


def _curve(start: Point, end: Point, heading: Point, r: float, s: float, rng: np.random.Generator) -> list[Piece]:
    """Return a branch that leaves along its parent's heading and bends to its own, in straight pieces."""
    length = float(np.linalg.norm(end - start))
    ahead = start + heading / max(float(np.linalg.norm(heading)), 1e-6) * 0.3 * length
    control = 0.4 * ahead + 0.6 * (start + end) / 2 + rng.normal(0, 0.06 * length, 3)
    t = np.linspace(0, 1, _PIECES + 1)[:, None]
    points = (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * end
    radii = np.linspace(r, s, _PIECES + 1)
    return [Piece(points[i], points[i + 1], float(radii[i]), float(radii[i + 1])) for i in range(_PIECES)]
