"""One look for each coset: as few as the symmetry allows, and no fewer."""

import itertools

import numpy as np
import pytest

from gcnn_cli.symmetry.cosets import coset_representatives
from gcnn_cli.symmetry.groups import GENERATORS, make_group

PAIRS = list(itertools.product([name for name in GENERATORS if not name.startswith("p")], repeat=2))


@pytest.mark.parametrize(("known", "over", "looks"), [("O", "Oh", 2), ("trivial", "Oh", 48), ("Oh", "O", 1)])
def test_known_numbers_of_looks(known, over, looks):
    assert len(coset_representatives(known, over)) == looks


def test_groups_that_do_not_contain_each_other_share_a_subgroup():
    # D4h holds the 8 rotations of O that keep the z axis.
    assert len(coset_representatives("D4h", "O")) == 24 // 8


@pytest.mark.parametrize(("known", "over"), PAIRS)
def test_shared_elements_times_representatives_are_the_whole_group_once(known, over):
    group = make_group(over)
    own = {m.tobytes() for m in make_group(known).matrices}
    shared = [m for m in group.matrices if m.tobytes() in own]
    looks = coset_representatives(known, over)
    assert np.array_equal(looks[0], np.eye(3))
    products = sorted((h @ k).tolist() for h in shared for k in looks)
    assert products == sorted(m.tolist() for m in group.matrices)
