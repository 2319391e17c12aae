"""Averages over a group K of a function that is already invariant under a group H.

Such a function f has one value on each right coset (H ∩ K) k in K: f(L_h L_k x) = f(L_k x). All cosets have the same
size, so the mean over K equals the mean over one element of each coset. For a network with the group O this takes 2
elements of Oh instead of 48.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.symmetry.groups import make_group


@cache
def coset_representatives(known: str, over: str) -> NDArray[np.int8]:
    """Return one matrix of each right coset in `over` of the elements that both groups share: int8 [N, d, d].

    known: the group under which a function is invariant
    over:  the group to average over

    The identity comes first. Raises ModelError for an unknown group.
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
