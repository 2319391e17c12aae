"""The axioms, for every element of every group."""

import numpy as np
import pytest

from gcnn_cli.errors import ModelError
from gcnn_cli.symmetry.groups import GENERATORS, make_group

# name: (order, proper rotations)
KNOWN = {
    "trivial": (1, 1), "C4": (4, 4), "C4h": (8, 4), "D4": (8, 8), "D4h": (16, 8), "O": (24, 24), "Oh": (48, 24),
    "p1": (1, 1), "p4": (4, 4), "p4m": (8, 4),
}  # fmt: skip


@pytest.mark.parametrize("name", GENERATORS)
def test_the_table_is_a_group(name):
    group = make_group(name)
    table, g = group.product, np.arange(group.order)
    assert (table[0] == g).all()  # identity
    assert (table[:, 0] == g).all()
    assert (table[g, group.inverse] == 0).all()  # inverses
    assert (table[group.inverse, g] == 0).all()
    assert (table[table] == table[:, table]).all()  # (ab)c == a(bc), every triple


@pytest.mark.parametrize("name", GENERATORS)
def test_the_table_multiplies_the_matrices(name):
    group = make_group(name)
    products = group.matrices[:, None] @ group.matrices[None, :]
    assert (group.matrices[group.product] == products).all()


@pytest.mark.parametrize("name", GENERATORS)
def test_elements_are_distinct_signed_permutations(name):
    matrices = make_group(name).matrices
    assert len({m.tobytes() for m in matrices}) == len(matrices)
    assert (np.abs(matrices).sum(axis=1) == 1).all()
    assert (np.abs(matrices).sum(axis=2) == 1).all()


@pytest.mark.parametrize("name", GENERATORS)
def test_order_and_rotations_are_the_known_ones(name):
    group = make_group(name)
    rotations = int((np.round(np.linalg.det(group.matrices.astype(float))) == 1).sum())
    assert (group.order, rotations) == KNOWN[name]


@pytest.mark.parametrize(
    ("small", "large"), [("C4", "C4h"), ("C4", "D4"), ("D4", "D4h"), ("D4", "O"), ("D4h", "Oh"), ("O", "Oh")]
)
def test_subgroups(small, large):
    inside = {m.tobytes() for m in make_group(large).matrices}
    assert {m.tobytes() for m in make_group(small).matrices} < inside


@pytest.mark.parametrize("name", ["C4", "C4h", "D4", "D4h"])
def test_the_fourfold_axis_is_z(name):
    # z is the first coordinate: every element maps it to itself or its opposite.
    assert (np.abs(make_group(name).matrices[:, 0, 0]) == 1).all()


def test_an_unknown_group_is_refused():
    with pytest.raises(ModelError, match="'C7'.*choose one of"):
        make_group("C7")
