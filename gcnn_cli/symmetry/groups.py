"""Finite symmetry groups of the voxel grid, as data.

An element is a signed permutation matrix acting on centered coordinates, (z, y, x) in three
dimensions and (y, x) in two. It maps voxels to voxels exactly, without interpolation or
tolerance. A group is three arrays: the matrices, the Cayley table and the inverses. Layers
need nothing else. Element 0 is the identity.

Names: point groups in Schoenflies notation (main axis z), and p4 and p4m of Cohen & Welling
2016 (arXiv:1602.07576) for the point groups of these planar groups.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.errors import ModelError

Matrix = tuple[tuple[int, ...], ...]

_QUARTER_Z: Matrix = ((1, 0, 0), (0, 0, -1), (0, 1, 0))
_QUARTER_X: Matrix = ((0, -1, 0), (1, 0, 0), (0, 0, 1))
_HALF_Y: Matrix = ((-1, 0, 0), (0, 1, 0), (0, 0, -1))
_MIRROR_Z: Matrix = ((-1, 0, 0), (0, 1, 0), (0, 0, 1))
_INVERSION: Matrix = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))

_QUARTER: Matrix = ((0, -1), (1, 0))
_MIRROR: Matrix = ((1, 0), (0, -1))

GENERATORS: dict[str, tuple[int, tuple[Matrix, ...]]] = {  # name: (dimension, generators); order
    "trivial": (3, ()),  # 1: an ordinary CNN
    "C4": (3, (_QUARTER_Z,)),  # 4
    "C4h": (3, (_QUARTER_Z, _MIRROR_Z)),  # 8
    "D4": (3, (_QUARTER_Z, _HALF_Y)),  # 8: rotations that keep the z axis
    "D4h": (3, (_QUARTER_Z, _HALF_Y, _INVERSION)),  # 16
    "O": (3, (_QUARTER_Z, _QUARTER_X)),  # 24: rotations of the cube
    "Oh": (3, (_QUARTER_Z, _QUARTER_X, _INVERSION)),  # 48: all signed permutations
    "p1": (2, ()),  # 1: an ordinary planar CNN
    "p4": (2, (_QUARTER,)),  # 4
    "p4m": (2, (_QUARTER, _MIRROR)),  # 8
}


@dataclass(frozen=True, eq=False)
class Group:
    """A finite group of signed permutation matrices, of order G in d dimensions.

    matrices: int8  [G, d, d]
    product:  int64 [G, G], matrices[product[g, h]] == matrices[g] @ matrices[h]
    inverse:  int64 [G],    product[g, inverse[g]] == 0
    """

    name: str
    matrices: NDArray[np.int8]
    product: NDArray[np.int64]
    inverse: NDArray[np.int64]

    @property
    def order(self) -> int:
        """Number of elements."""
        return len(self.matrices)

    @property
    def dimension(self) -> int:
        """Number of spatial axes: 2 for planar groups, 3 for the others."""
        return int(self.matrices.shape[1])


@cache
def make_group(name: str) -> Group:
    """Return the named group, closed under multiplication. Raises ModelError for an unknown name."""
    if name not in GENERATORS:
        raise ModelError(f"unknown group {name!r}: choose one of {', '.join(GENERATORS)}")
    dimension, generators = GENERATORS[name]
    matrices = _closure(dimension, generators)
    index = {matrix.tobytes(): g for g, matrix in enumerate(matrices)}
    # A missing product raises KeyError here: closure is proved by construction.
    product = np.array([[index[(a @ b).tobytes()] for b in matrices] for a in matrices])
    inverse = np.argmax(product == 0, axis=1)
    for array in (matrices, product, inverse):
        array.flags.writeable = False
    return Group(name, matrices, product, inverse)


def _closure(dimension: int, generators: Iterable[Matrix]) -> NDArray[np.int8]:
    """Return all products of the generators [G, d, d]: the identity first, the rest in sorted order."""
    identity = np.eye(dimension, dtype=np.int8)
    steps = [np.array(generator, dtype=np.int8) for generator in generators]
    found = {identity.tobytes(): identity}
    frontier = [identity]
    while frontier:
        products = [matrix @ step for matrix in frontier for step in steps]
        frontier = [m for m in {p.tobytes(): p for p in products}.values() if m.tobytes() not in found]
        found |= {m.tobytes(): m for m in frontier}
    others = sorted((m for m in found.values() if m is not identity), key=lambda m: m.tolist(), reverse=True)
    return np.stack([identity, *others])
