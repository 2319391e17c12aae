"""Averaging over a group without looking twice at what is known to be equal.

A function f that is invariant under H has one value on each right coset (H ∩ K) k of its own symmetries in K:
f(L_h L_k x) = f(L_k x). All cosets are of one size, so its mean over K is its mean over one element of each. A
network with the group O needs 2 elements of Oh for that, not 48.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.symmetry.groups import make_group


@cache
def coset_representatives(known: str, over: str) -> NDArray[np.int8]:
    """Return one matrix of each right coset of the elements that both groups share in `over`: int8 [N, d, d].

    known: the group under which a function is invariant; over: the group to average over. The identity comes first.
    Raises ModelError for an unknown group.
    """
    group = make_group(over)
    own = {matrix.tobytes() for matrix in make_group(known).matrices}
    shared = [g for g, matrix in enumerate(group.matrices) if g == 0 or matrix.tobytes() in own]
    chosen: list[int] = []
    seen: set[int] = set()
    for g in range(group.order):
        if g not in seen:
            chosen.append(g)
            seen.update(int(group.product[h, g]) for h in shared)
    matrices = group.matrices[chosen]
    matrices.flags.writeable = False
    return matrices
