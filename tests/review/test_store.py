"""Reviews on disk: every decision is there at once, goes on after a stop, and belongs to one scan and one reader."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from review.results import session_of, some_cases

from gcnn_cli.errors import InputError, OutputError, UsageError
from gcnn_cli.review.cases import find_cases
from gcnn_cli.review.store import Store
from gcnn_cli.review.tables import check_tables


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return some_cases(tmp_path_factory.mktemp("store"), ("series", "flipped"))


def file_of(folder, name="flipped", reader="ada"):
    return folder / "reviews" / reader / f"{name}.json"


def test_each_decision_is_on_the_disk_before_the_answer_and_survives_a_stop(cases, tmp_path):
    session = session_of(cases, tmp_path)
    key = session.review(1)["entries"][0]["key"]
    for verdict in ("accept", "reject", "unsure"):
        answer = session.decide(1, {"kind": verdict, "key": key})
        again = session_of(cases, tmp_path).review(1)  # another process that starts now
        assert again["entries"] == answer["entries"]
        assert again["can_undo"]
    back = session_of(cases, tmp_path).decide(1, {"kind": "undo"})
    assert back["entries"][0]["verdict"] == "rejected"
    assert session_of(cases, tmp_path).decide(1, {"kind": "redo"})["entries"][0]["verdict"] == "unsure"
    assert not file_of(tmp_path, "1.2.3.6").exists()  # nothing was decided about the other scan


def test_a_failed_save_changes_nothing(cases, tmp_path, monkeypatch):
    session = session_of(cases, tmp_path)
    key = session.review(1)["entries"][0]["key"]
    session.decide(1, {"kind": "accept", "key": key})
    before = file_of(tmp_path).read_bytes()
    monkeypatch.setattr("gcnn_cli.files.os.fsync", _disk_full)
    with pytest.raises(OutputError, match="No space"):
        session.decide(1, {"kind": "reject", "key": key})
    assert file_of(tmp_path).read_bytes() == before
    assert session.review(1)["entries"][0]["verdict"] == "accepted"
    assert sorted(p.name for p in file_of(tmp_path).parent.iterdir()) == ["flipped.json"]


def test_tables_that_could_not_be_written_are_written_by_the_next_decision(cases, tmp_path, monkeypatch):
    """Though it is the same one again, which changes nothing."""
    session = session_of(cases, tmp_path)
    finish = {"kind": "finish", "threshold": 1.0}
    with monkeypatch.context() as patched:
        patched.setattr("gcnn_cli.review.session.write_tables", _no_tables)
        with pytest.raises(OutputError, match="cannot be written"):
            session.decide(1, finish)
    assert not (tmp_path / "seriesuids.csv").exists()
    session.decide(1, finish)
    assert "flipped" in (tmp_path / "seriesuids.csv").read_text()


def _no_tables(_):
    raise OutputError("cannot be written: Permission denied")


def _disk_full(_):
    raise OSError(28, "No space left on device")


def test_readers_do_not_touch_each_other(cases, tmp_path):
    ada, bob = session_of(cases, tmp_path), session_of(cases, tmp_path, "bob")
    key = ada.review(1)["entries"][0]["key"]
    ada.decide(1, {"kind": "accept", "key": key})
    bob.decide(1, {"kind": "reject", "key": key})
    assert ada.review(1)["entries"][0]["verdict"] == "accepted"
    assert session_of(cases, tmp_path).review(1)["entries"][0]["verdict"] == "accepted"


def test_one_process_reviews_under_a_name(cases, tmp_path):
    with Store(tmp_path, "ada").claimed():
        with pytest.raises(UsageError, match="reviews as 'ada'"), Store(tmp_path, "ada").claimed():
            pass
        with Store(tmp_path, "bob").claimed():
            pass
    with Store(tmp_path, "ada").claimed():
        pass


@pytest.mark.parametrize("name", ["", "../ada", "a b", "a/b", "-a", "é", "a" * 41, "."])
def test_a_readers_name_is_no_path(tmp_path, name):
    with pytest.raises(UsageError, match="--reader"):
        Store(tmp_path, name)


def test_another_scan_of_the_same_name_is_refused(cases, tmp_path):
    session = session_of(cases, tmp_path)
    session.decide(1, {"kind": "finish", "threshold": 0.5})
    path = file_of(tmp_path)
    path.write_text(path.read_text().replace(cases[1].report.scan.source.sha256, "0" * 64))
    with pytest.raises(InputError, match="other voxels"):
        session_of(cases, tmp_path)


def test_reviews_of_two_scans_under_one_name_are_not_merged(cases, tmp_path):
    session_of(cases, tmp_path).decide(1, {"kind": "finish", "threshold": 0.5})
    path = file_of(tmp_path)
    other = path.parent.parent / "bob" / path.name
    other.parent.mkdir()
    other.write_text(path.read_text().replace(cases[1].report.scan.source.sha256, "0" * 64))
    with pytest.raises(InputError, match="under one name; move one of them"):
        session_of(cases, tmp_path)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"accept"', '"explode"'), ('"size"', '"sizes"'), ("{", ""), ('"1.0"', '"9.0"'),
        ('"actions": [', '"actions": [3, '), ('"kind": "accept",\n   "key": "', '"kind": "accept",\n   "key": "x'),
    ],
)  # fmt: skip
def test_a_damaged_review_is_refused_and_left_alone(cases, tmp_path, old, new):
    session = session_of(cases, tmp_path)
    session.decide(1, {"kind": "accept", "key": session.review(1)["entries"][0]["key"]})
    path = file_of(tmp_path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    damaged = path.read_bytes()
    with pytest.raises(InputError, match="flipped.json"):
        session_of(cases, tmp_path)
    assert path.read_bytes() == damaged


def test_labels_that_no_review_made_are_not_replaced(cases, tmp_path):
    (tmp_path / "annotations.csv").write_text("mine\n")
    with pytest.raises(UsageError, match="annotations.csv exists already"):
        check_tables(tmp_path)
    (tmp_path / "annotations.csv").unlink()
    session_of(cases, tmp_path).decide(0, {"kind": "finish", "threshold": 0.5})
    assert (tmp_path / "annotations.csv").exists()
    check_tables(tmp_path)


def test_tables_that_a_kill_left_behind_are_made_again_at_the_start(cases, tmp_path):
    session = session_of(cases, tmp_path)
    session.decide(1, {"kind": "accept", "key": session.review(1)["entries"][0]["key"]})
    session.decide(1, {"kind": "finish", "threshold": 1.0})
    whole = (tmp_path / "annotations.csv").read_bytes()
    assert whole.count(b"flipped") == 1
    (tmp_path / "annotations.csv").unlink()
    (tmp_path / "seriesuids.csv").write_text("seriesuid\n")
    session_of(cases, tmp_path)
    assert (tmp_path / "annotations.csv").read_bytes() == whole
    assert (tmp_path / "seriesuids.csv").read_text() == "seriesuid\nflipped\n"


def test_decisions_at_the_same_time_are_all_kept(cases, tmp_path):
    session = session_of(cases, tmp_path)
    keys = [entry["key"] for entry in session.review(1)["entries"]]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda key: session.decide(1, {"kind": "accept", "key": key}), keys))
    assert [entry["verdict"] for entry in session_of(cases, tmp_path).review(1)["entries"]] == ["accepted"] * 3


def test_a_cohort_without_findings_can_be_looked_through(cases, tmp_path):
    empty = [replace(case, report=replace(case.report, nodules=())) for case in cases]
    session = session_of(empty, tmp_path)
    assert session.overview()["stops"] == []
    answer = session.decide(0, {"kind": "finish", "threshold": 0})
    assert (answer["entries"], answer["cases"][0]["finished"]) == ([], True)


def test_long_and_strange_names_stay_in_the_folder(cases, tmp_path):
    store = Store(tmp_path, "ada")
    names = ["../../up", "..", "a/b", "x" * 300, "x" * 301, "ä" * 100, "a b"]
    paths = [store._path("ada", name) for name in names]
    assert len(set(paths)) == len(names)
    assert all(path.parent == tmp_path / "reviews" / "ada" and len(path.name) < 200 for path in paths)


def test_results_and_scans_are_found(cases, tmp_path):
    results, scans = cases[0].result.parent, cases[1].scan.parent
    found = find_cases([results])
    assert [case.name for case in found] == ["flipped", "series"]
    assert not any(case.problem for case in found)
    moved = find_cases([results], scans)
    assert {case.name: case.scan for case in moved} == {"flipped": scans / "flipped.mhd", "series": scans / "series"}
    assert find_cases([cases[1].result], scans / "flipped.mhd")[0].scan == scans / "flipped.mhd"
    again = tmp_path / "again.nodules.json"
    again.write_bytes(cases[1].result.read_bytes())
    with pytest.raises(UsageError, match="results of one scan"):
        find_cases([results, again])
    again.write_text(again.read_text().replace(cases[1].report.scan.source.sha256, "0" * 64))
    with pytest.raises(UsageError, match="two scans that are both called flipped"):
        find_cases([results, again])
    with pytest.raises(UsageError, match="give the folder of the scans"):
        find_cases([results], scans / "flipped.mhd")
    with pytest.raises(InputError, match="holds no result"):
        find_cases([scans])
    with pytest.raises(InputError, match="no scan of"):
        find_cases([results], tmp_path)
    data = json.loads(cases[1].result.read_text())
    data["input"]["path"] = "gone.mhd"
    (tmp_path / "gone.nodules.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="give its place with --scan"):
        find_cases([tmp_path / "gone.nodules.json"])
    with_one = find_cases([cases[0].result, tmp_path / "gone.nodules.json"])
    assert [bool(case.problem) for case in with_one] == [False, True]


def test_the_scan_of_another_result_is_not_shown(cases, tmp_path):
    wrong = find_cases([cases[0].result], cases[1].scan)
    with pytest.raises(InputError, match="image file|not the scan of this result"):
        session_of(wrong, tmp_path).scan(0)
