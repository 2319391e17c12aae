"""Seconds of several forms of a thing, side by side."""

import time
from collections.abc import Callable, Iterable

import numpy as np

Form = Callable[[], object]


def seconds(form: Form) -> float:
    """Of one call."""
    started = time.perf_counter()
    form()
    return time.perf_counter() - started


def in_turn(forms: Iterable[Form], rounds: int) -> np.ndarray:
    """Seconds [rounds, forms], all forms in turn in every round, so that a machine that drifts does not decide.

    A round before these warms up.
    """
    forms = list(forms)
    return np.array([[seconds(form) for form in forms] for _ in range(rounds + 1)][1:])
