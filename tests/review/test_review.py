"""Decisions about a scan: each does what it says, can be taken back, and refuses what would spoil the labels."""

import itertools
from dataclasses import replace

import pytest
from review.results import some_cases

from gcnn_cli.errors import InputError
from gcnn_cli.review.entries import entries_of
from gcnn_cli.review.review import Action, Review, parse_action
from gcnn_cli.scan.lattice import Lattice


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return some_cases(tmp_path_factory.mktemp("review"))[0].report


@pytest.fixture
def review(report):
    return Review(Lattice(report.scan.shape_zyx, report.scan.to_world), entries_of(report))


def key(review, number=0):
    return review.findings[number].key


def verdicts(review):
    return [entry.verdict for entry in review.entries()]


def decisions(review):
    """One of each kind that changes something, in an order in which all of them do."""
    first, second, third = (entry.key for entry in review.findings)
    place = review.findings[0].position_mm
    return [
        Action("accept", first), Action("reject", second), Action("unsure", third), Action("clear", third),
        Action("move", first, (place[0] + 1, *place[1:])), Action("resize", first, diameter_mm=7.5),
        Action("add", position_mm=place, diameter_mm=6.0), Action("finish", threshold=0.5), Action("reopen"),
    ]  # fmt: skip


def test_verdicts_do_what_they_say(review):
    after = review.act(Action("accept", key(review, 0))).act(Action("reject", key(review, 1)))
    assert verdicts(after) == ["accepted", "rejected", "open"]
    assert verdicts(after.act(Action("unsure", key(review, 2))).act(Action("clear", key(review, 0)))) == [
        "open", "rejected", "unsure",
    ]  # fmt: skip


def test_a_correction_of_an_open_finding_accepts_it_and_of_a_rejected_one_does_not(review):
    place = review.findings[1].position_mm
    moved = review.act(Action("move", key(review), place)).entries()[0]
    assert (moved.position_mm, moved.found_mm, moved.verdict) == (place, review.findings[0].position_mm, "accepted")
    resized = review.act(Action("reject", key(review))).act(Action("resize", key(review), diameter_mm=3.0)).entries()[0]
    assert (resized.diameter_mm, resized.verdict) == (3.0, "rejected")


def test_added_nodules_come_last_and_keep_their_names(review):
    place = review.findings[0].position_mm
    add = Action("add", position_mm=place, diameter_mm=6.0)
    twice = review.act(add).act(add)
    assert [entry.key for entry in twice.entries()][3:] == ["added-1", "added-2"]
    assert [entry.key for entry in twice.undo().act(add).entries()][3:] == ["added-1", "added-2"]
    assert twice.act(Action("reject", "added-1")).entries()[3].verdict == "rejected"


def test_every_decision_can_be_taken_back_and_brought_again(review):
    states = [review]
    for action in decisions(review):
        states.append(states[-1].act(action))
        assert states[-1] != states[-2], action
    for later, earlier in zip(states[::-1], states[-2::-1], strict=False):
        back = later.undo()
        assert (back.entries(), back.finished_at) == (earlier.entries(), earlier.finished_at)
        assert back.redo() == later
    assert review.undo() is review
    assert review.redo() is review


def test_a_decision_after_undo_forgets_what_was_undone(review):
    after = review.act(Action("accept", key(review))).undo().act(Action("reject", key(review)))
    assert after.redo() is after


def test_what_changes_nothing_is_not_recorded(review):
    once = review.act(Action("accept", key(review)))
    assert once.act(Action("accept", key(review))) is once
    assert review.act(Action("clear", key(review))) is review
    assert review.act(Action("reopen")) is review


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"kind": "explode"}, "not an action"),
        ({"kind": "accept", "key": "nowhere"}, "no entry 'nowhere'"),
        ({"kind": "accept"}, "needs an entry"),
        ({"kind": "finish", "key": "added-1", "threshold": 0.5}, "the whole scan"),
        ({"kind": "finish"}, "needs threshold"),
        ({"kind": "finish", "threshold": 1.5}, "between 0 and 1"),
        ({"kind": "add", "position_mm": [1e4, 0, 0], "diameter_mm": 6}, "outside the scan"),
        ({"kind": "add", "position_mm": [0, 0], "diameter_mm": 6}, "three numbers"),
        ({"kind": "add", "position_mm": [0, 0, True], "diameter_mm": 6}, "not a number"),
        ({"kind": "add", "position_mm": [0, 0, float("nan")], "diameter_mm": 6}, "not a number"),
        ({"kind": "add", "position_mm": [0, 0, 0]}, "needs diameter_mm"),
        ({"kind": "add", "position_mm": [0, 0, 0], "diameter_mm": 0}, "between 1 and 200"),
        ({"kind": "accept", "key": "x", "diameter_mm": 3}, "takes no diameter_mm"),
        ({"kind": 3}, "not an action"),
        ([], "not an action"),
    ],
)
def test_impossible_decisions_are_refused(review, data, reason):
    with pytest.raises(InputError, match=reason):
        review.act(parse_action(data, "now"))


def test_a_new_report_keeps_the_decisions(review, report):
    decided = review.act(Action("accept", key(review))).act(Action("reject", key(review, 1)))
    x, y, z = report.nodules[0].position_mm
    beside = replace(report.nodules[0], position_mm=(x + 1.5, y, z), probability=0.3)
    elsewhere = replace(report.nodules[2], position_mm=(x, y, z + 20), probability=0.9)
    again = decided.with_findings(entries_of(replace(report, nodules=(elsewhere, beside))))
    by_key = {entry.key: entry for entry in again.entries()}
    assert len(by_key) == 3
    assert (by_key[key(review)].verdict, by_key[key(review)].probability) == ("accepted", 0.3)
    assert by_key[key(review)].position_mm == report.nodules[0].position_mm
    assert by_key[key(review, 1)].verdict == "rejected"
    assert key(review, 2) not in by_key


def test_open_findings_count_from_the_threshold_on_that_the_reader_saw(review):
    probabilities = [entry.probability for entry in review.findings]
    for threshold, count in zip([*probabilities, 1.0], (1, 2, 3, 0), strict=True):
        assert len(list(review.act(Action("finish", threshold=threshold)).still_open())) == count
    assert list(review.still_open()) == []


def test_the_order_of_decisions_about_different_findings_does_not_matter(review):
    actions = [Action("accept", key(review)), Action("reject", key(review, 1)), Action("unsure", key(review, 2))]
    results = set()
    for order in itertools.permutations(actions):
        after = review
        for action in order:
            after = after.act(action)
        results.add(after.entries())
    assert len(results) == 1
