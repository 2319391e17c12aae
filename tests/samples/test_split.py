"""Subsets of the samples."""

import pytest
from training.small import sample

from gcnn_cli.errors import InputError
from gcnn_cli.samples.split import nested_subset


def test_subsets_are_nested_balanced_and_few_patients():
    samples = [sample(1, n=n, patient=f"p{n // 5}") for n in range(50)] + [sample(0, n=n) for n in range(50)]
    small, large = nested_subset(samples, 20, seed=1), nested_subset(samples, 60, seed=1)
    assert {id(s) for s in small} < {id(s) for s in large}
    assert sum(s.label for s in small) == 10
    assert len({s.patient for s in small if s.label}) == 2
    assert {id(s) for s in small} != {id(s) for s in nested_subset(samples, 20, seed=2)}
    with pytest.raises(InputError, match="needs 60 samples of class 1, found 50"):
        nested_subset(samples, 120, seed=1)
