"""One entry for each lesion, whatever the order of the candidates."""

import itertools

import pytest

from gcnn_cli.detection.measure import Measurement
from gcnn_cli.detection.merge import MergeConfig, Scored, merge_duplicates
from gcnn_cli.errors import InputError


def finding(x, probability, diameter=6.0):
    return Scored(Measurement((x, 0.0, 0.0), 100.0, diameter), probability)


def test_the_most_probable_of_a_lesion_stays():
    a, b, c = finding(0, 0.9), finding(2, 0.7), finding(30, 0.8)
    for order in itertools.permutations([a, b, c]):
        assert merge_duplicates(order, MergeConfig()) == [a, c]


def test_a_large_nodule_takes_in_what_lies_inside_it_and_at_its_rim():
    """Radii of 10 and 3 mm: up to 11.5 mm a quarter of the small one's diameter is inside."""
    large, beside = finding(0, 0.9, diameter=20), finding(11.5, 0.7)
    for inside in (finding(9, 0.8), finding(11.4, 0.8)):
        assert merge_duplicates([large, inside, beside], MergeConfig()) == [large, beside]


def test_the_rim_counts_whichever_is_more_probable():
    small = finding(11.4, 0.9)
    assert merge_duplicates([finding(0, 0.8, diameter=20), small], MergeConfig()) == [small]


def test_the_less_probable_may_be_the_larger():
    large = finding(0, 0.6, diameter=20)
    assert merge_duplicates([large, finding(9, 0.8), finding(-11, 0.7)], MergeConfig()) == [
        finding(9, 0.8),
        finding(-11, 0.7),
    ]


def test_centers_as_far_apart_as_asked_are_two_lesions():
    first, near, far = (finding(x, p, diameter=2.0) for x, p in ((0, 0.9), (3.9, 0.5), (4.0, 0.5)))
    assert merge_duplicates([first, near], MergeConfig()) == [first]
    assert merge_duplicates([first, far], MergeConfig()) == [first, far]
    assert merge_duplicates([finding(0, 0.9, 0.2), finding(0.2, 0.5, 0.2)], MergeConfig(apart_mm=0)) == [
        finding(0, 0.9, 0.2),
        finding(0.2, 0.5, 0.2),
    ]


def test_the_most_probable_come_first():
    a, b, c = finding(0, 0.2), finding(30, 0.9), finding(60, 0.5)
    assert merge_duplicates([a, b, c], MergeConfig()) == [b, c, a]


def test_ties_do_not_depend_on_the_order():
    a, b = finding(0, 0.5), finding(1, 0.5)
    assert merge_duplicates([a, b], MergeConfig()) == merge_duplicates([b, a], MergeConfig()) == [a]


def test_nothing_in_nothing_out():
    assert merge_duplicates([], MergeConfig()) == []


def test_a_negative_distance_is_refused():
    with pytest.raises(InputError):
        MergeConfig(apart_mm=-0.1)


def test_settings_and_findings_do_not_change():
    for value, name in ((MergeConfig(), "apart_mm"), (finding(0, 0.5), "probability")):
        with pytest.raises(AttributeError):
            setattr(value, name, 1.0)
