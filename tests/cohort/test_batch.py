"""Batches: what fails is recorded and the rest goes on; nothing finished is repeated; one run in a folder."""

import csv
import errno
import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from cohort.thin import contents, copy_scans, run_detect, summary_rows, write_weights
from lock_texts import signed
from scan.scans import axial, some_hu, write_series

import gcnn_cli.cohort.jobs as jobs
from gcnn_cli import NOTICE
from gcnn_cli.cohort.labelled import detect_labelled
from gcnn_cli.detection.detector import make_detector
from gcnn_cli.detection.stages import Stage, Step
from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.labels.entries import ScanEntry
from gcnn_cli.network.weights import load_model
from gcnn_cli.scan.volume import Volume
from gcnn_cli.scan.writing import write_metaimage

NO_MEMORY = (
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    " 17179869184 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.fixture
def ward(thin, tmp_path):
    """Ten good scans, one truncated, one localizer and a text file."""
    folder = tmp_path / "ward"
    copy_scans(thin, folder, 11)
    cut = folder / "scan04.zraw"
    cut.write_bytes(cut.read_bytes()[:2000])

    def scout(_, dataset):
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    write_series(folder / "scout", some_hu(), axial(), edit=scout)
    (folder / "notes.txt").write_text("call the ward")
    return folder


@pytest.fixture
def three(thin, tmp_path):
    """Three good scans."""
    folder = tmp_path / "three"
    copy_scans(thin, folder, 3)
    return folder


def test_ten_good_scans_and_three_reasons(ward, weights, tmp_path):
    out = tmp_path / "out"
    done = run_detect(ward, "--model", weights, "--out", out)
    assert done.exit_code == 8, done.output + repr(done.exception)
    assert len(list(out.glob("*.nodules.csv"))) == len(list(out.glob("*.nodules.json"))) == 10
    rows = {Path(row["path"]).name: row for row in summary_rows(out)}
    assert [row["status"] for row in rows.values()].count("done") == 10
    reasons = {name: (row["status"], row["stage"], row["reason"]) for name, row in rows.items() if row["reason"]}
    assert list(reasons) == ["scan04.mhd", "scout", "notes.txt"]
    assert reasons["scan04.mhd"][:2] == ("failed", "reading")
    assert "scan04.zraw" in reasons["scan04.mhd"][2]
    assert reasons["scout"][:2] == ("failed", "reading")
    assert "localizer" in reasons["scout"][2]
    assert reasons["notes.txt"][:2] == ("set aside", "finding")
    for _, _, reason in reasons.values():
        assert reason in done.stderr
    assert "2 of 12 scans failed; the others are done; see" in done.stderr
    for row in rows.values():
        if row["status"] == "done":
            data = json.loads((out / f"{row['result']}.nodules.json").read_text())
            assert int(row["nodules"]) == len(data["nodules"]) > 0
            assert (row["seriesuid"], row["path"]) == (data["input"]["seriesuid"], data["input"]["path"])
    summary = json.loads((out / "cohort.json").read_text())
    assert summary["complete"]
    assert summary["counts"] == {"done": 10, "failed": 2, "set aside": 1}
    assert {entry["exit_code"] for entry in summary["scans"]} == {0, 3}
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_the_model_is_loaded_once(three, weights, tmp_path, monkeypatch):
    loaded = []

    def load(model):
        loaded.append(model)
        return load_model(model)

    monkeypatch.setattr("gcnn_cli.network.weights.load_model", load)
    assert run_detect(three, "--model", weights, "--out", tmp_path / "out").exit_code == 0
    assert len(loaded) == 1


def test_folders_below_keep_their_names_apart(thin, weights, tmp_path):
    for patient in ("p1", "p2"):
        (tmp_path / "in" / patient).mkdir(parents=True)
        for ending in ("mhd", "zraw"):
            shutil.copy(thin / f"scan00.{ending}", tmp_path / "in" / patient)
    out = tmp_path / "out"
    assert run_detect(tmp_path / "in", "--model", weights, "--out", out).exit_code == 0
    assert [row["result"] for row in summary_rows(out)] == ["p1/scan00", "p2/scan00"]
    assert (out / "p1" / "scan00.nodules.csv").read_bytes() == (out / "p2" / "scan00.nodules.csv").read_bytes()
    clash = run_detect(*(tmp_path / "in" / p / "scan00.mhd" for p in ("p1", "p2")), "--model", weights)
    assert clash.exit_code == 2
    assert "give their common parent folder" in clash.stderr


def test_a_list_from_stdin(three, weights, tmp_path):
    listed = f"{three / 'scan00.mhd'}\n{three / 'gone.mhd'}\n"
    done = run_detect("-", "--model", weights, "--out", "-", input=listed)
    assert done.exit_code == 8
    assert [json.loads(line)["input"]["seriesuid"] for line in done.stdout.splitlines()] == ["scan00"]
    assert "gone.mhd: no such file or folder" in done.stderr


def test_a_batch_of_one_is_one_nevertheless(three, weights, tmp_path):
    out = tmp_path / "out"
    done = run_detect("-", "--model", weights, "--out", out, input=f"{three / 'gone.mhd'}\n")
    assert done.exit_code == 8
    assert [row["status"] for row in summary_rows(out)] == ["failed"]


def test_resume_repeats_nothing_and_tries_failures_again(ward, thin, weights, tmp_path):
    out = tmp_path / "out"
    arguments = (ward, "--model", weights, "--out", out)
    run_detect(*arguments)
    refused = run_detect(*arguments)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "exists already" in refused.stderr
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.nodules.*")}
    first = contents(out)
    assert run_detect(*arguments, "--resume").exit_code == 8
    assert contents(out) == first  # the summary too
    shutil.copy(thin / "scan04.zraw", ward)
    (out / "scan07.nodules.json").unlink()
    shutil.rmtree(ward / "scout")
    done = run_detect(*arguments, "--resume")
    assert done.exit_code == 0, done.output
    after = {path: path.stat().st_mtime_ns for path in out.glob("*.nodules.*")}
    again = {path.name for path in after if before.get(path) != after[path]}
    assert again == {f"scan{n:02d}.nodules.{ending}" for n in (4, 7) for ending in ("csv", "json")}
    entries = json.loads((out / "cohort.json").read_text())["scans"]
    assert {Path(e["path"]).stem for e in entries if not e["done_before"]} == {"scan04", "scan07", "notes"}


def test_a_bug_at_one_scan_is_recorded_as_one(three, weights, tmp_path, monkeypatch, caplog):
    name = "Doe^Jane"  # as a header may hold it

    def detect(volume, *arguments, **options):
        if volume.source.series_uid == "scan01":
            raise KeyError(name)
        return real(volume, *arguments, **options)

    real = jobs.detect
    monkeypatch.setattr(jobs, "detect", detect)
    out = tmp_path / "out"
    done = run_detect(three, "--model", weights, "--out", out)
    assert done.exit_code == 8
    assert [row["status"] for row in summary_rows(out)] == ["done", "failed", "done"]
    assert "a bug, please report it: KeyError in jobs.py, line" in summary_rows(out)[1]["reason"]
    assert "Jane" not in done.output + caplog.text + (out / "cohort.json").read_text()
    alone = run_detect(three / "scan01.mhd", "--model", weights, "--out", tmp_path / "other")
    assert isinstance(alone.exception, KeyError)  # of one scan a bug keeps its traceback


def test_what_cannot_be_written_is_recorded(three, weights, tmp_path):
    out = tmp_path / "out"
    (out / "scan01.nodules.csv").mkdir(parents=True)
    done = run_detect(three, "--model", weights, "--out", out, "--overwrite")
    assert done.exit_code == 8
    rows = summary_rows(out)
    assert [(row["status"], row["stage"]) for row in rows] == [("done", ""), ("failed", "writing"), ("done", "")]
    assert not (out / "scan01.nodules.json").exists()


def test_an_interrupt_leaves_a_summary_that_does_not_look_whole(three, weights, tmp_path, monkeypatch):
    def detect(volume, *arguments, **options):
        if volume.source.series_uid == "scan01":
            raise KeyboardInterrupt
        assert [row["status"] for row in summary_rows(out)] == ["pending"] * 3  # before anything is known
        return real(volume, *arguments, **options)

    real = jobs.detect
    monkeypatch.setattr(jobs, "detect", detect)
    out = tmp_path / "out"
    assert run_detect(three, "--model", weights, "--out", out).exit_code == 130
    assert [row["status"] for row in summary_rows(out)] == ["done", "pending", "pending"]
    assert not json.loads((out / "cohort.json").read_text())["complete"]
    assert not (out / ".gcnn.lock").exists()


def test_two_runs_do_not_share_a_folder(three, weights, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    lock = out / ".gcnn.lock"
    lock.write_text(signed(os.getppid()))
    done = run_detect(three, "--model", weights, "--out", out)
    assert (done.exit_code, done.stdout) == (9, "")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert len(errors) == 1
    assert f"process {os.getppid()} on {socket.gethostname()} is writing a batch here" in errors[0]
    assert [path.name for path in out.iterdir()] == [".gcnn.lock"]
    # A single scan has no summary to keep, and may be one of many in a shell's loop.
    assert run_detect(three / "scan00.mhd", "--model", weights, "--out", out).exit_code == 0


def test_the_lock_and_the_leftovers_of_a_killed_run_are_cleared(three, weights, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".gcnn.lock").write_text(signed(4194999))  # above any process number
    for name in (".scan00.nodules.csv.99.part", ".cohort.json.99.part", ".other.csv.99.part"):
        (out / name).write_text("half")
    assert run_detect(three, "--model", weights, "--out", out, "--resume").exit_code == 0
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == [".other.csv.99.part"]


def test_the_stage_is_the_one_that_detection_was_at(three, weights, tmp_path, monkeypatch):
    def detect(volume, *arguments, notify, **options):
        notify(Step(Stage.SCORING, 200))
        raise InputError("no such luck")

    monkeypatch.setattr(jobs, "detect", detect)
    assert run_detect(three, "--model", weights, "--out", tmp_path / "out").exit_code == 8
    assert {row["stage"] for row in summary_rows(tmp_path / "out")} == {"scoring"}
    stages = {entry["stage"] for entry in json.loads((tmp_path / "out" / "cohort.json").read_text())["scans"]}
    assert stages == {Stage.SCORING}


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError(NO_MEMORY), OSError(errno.ENOMEM, "no memory")])
def test_a_scan_that_needs_more_memory_than_there_is_fails_alone(three, weights, tmp_path, monkeypatch, error):
    def detect(volume, *arguments, **options):
        if volume.source.series_uid == "scan01":
            raise error
        return real(volume, *arguments, **options)

    real = jobs.detect
    monkeypatch.setattr(jobs, "detect", detect)
    out = tmp_path / "out"
    assert run_detect(three, "--model", weights, "--out", out).exit_code == 8
    done, failed, also_done = json.loads((out / "cohort.json").read_text())["scans"]
    assert (done["status"], also_done["status"]) == ("done", "done")
    assert (failed["exit_code"], failed["reason"]) == (7, f"{three / 'scan01.mhd'}: ran out of memory")
    alone = run_detect(three / "scan01.mhd", "--model", weights, "--out", tmp_path / "other", "-q")
    assert (alone.exit_code, alone.output) == (7, f"error: {failed['reason']}\n")


def test_names_that_a_spreadsheet_would_run_are_inert_in_the_summary(thin, weights, tmp_path, monkeypatch):
    copy_scans(thin, tmp_path / "in", 1)
    (tmp_path / "in" / "scan00.mhd").rename(tmp_path / "in" / "=1+1.mhd")
    monkeypatch.chdir(tmp_path / "in")
    assert run_detect("-", "--model", weights, "--out", "out", input="=1+1.mhd\n").exit_code == 0
    with Path("out/cohort.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["path"], row["result"], row["seriesuid"]) == ("'=1+1.mhd", "'=1+1", "'=1+1")
    assert int(row["nodules"]) > 0
    with Path("out/=1+1.nodules.csv").open(encoding="utf-8", newline="") as file:
        assert {row["seriesuid"] for row in csv.DictReader(file)} == {"=1+1"}  # the key of other tables


def test_every_failure_names_its_scan(three, weights, tmp_path):
    solid = np.full((4, 40, 40), -1000, np.int16)
    solid[:, 10:30, 10:30] = 40  # a body without air in it
    write_metaimage(Volume(solid, axial()), three / "solid.mhd")
    done = run_detect(three, "--model", weights, "--out", tmp_path / "out")
    (row,) = [row for row in summary_rows(tmp_path / "out") if row["status"] == "failed"]
    assert (row["path"], row["stage"]) == (str(three / "solid.mhd"), "lungs")
    assert row["reason"].startswith(f"{three / 'solid.mhd'}: no lung found")
    assert f"error: {row['reason']}" in done.stderr


def test_an_option_that_no_scan_can_have_is_refused_once(three, weights, tmp_path):
    done = run_detect(three, "--model", weights, "--out", tmp_path / "out", "--average-over", "C9")
    assert (done.exit_code, done.stdout) == (6, "")
    assert "unknown group" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_mask_belongs_to_one_scan(three, weights, tmp_path):
    done = run_detect(three, "--model", weights, "--lung-mask", "m.mha", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "--lung-mask applies to a single scan, not to 3" in done.stderr


def test_what_was_found_is_told_unless_quiet(three, weights, tmp_path):
    (three / "notes.txt").write_text("")
    loud, silent = (run_detect(three, "--model", weights, "--out", tmp_path / q, q) for q in ("-v", "-q"))
    assert f"{NOTICE}\n" in loud.stderr
    assert f"{three}: 3 image files, 1 set aside\nset aside: {three / 'notes.txt'}: not a scan" in loud.stderr
    assert silent.stderr == silent.stdout == ""


def test_resume_with_another_format_replaces_no_other_weights_results(three, weights, tmp_path):
    out = tmp_path / "out"
    assert run_detect(three, "--model", weights, "--out", out, "-q").exit_code == 0
    before = {path.name: path.read_bytes() for path in out.glob("scan*")}
    more = (three, "--out", out, "-q", "--resume", "--format", "csv,json,luna16")
    other = write_weights(tmp_path / "other.safetensors", seed=1)
    assert run_detect(*more, "--model", other).exit_code == 8
    assert {path.name: path.read_bytes() for path in out.glob("scan*")} == before
    assert run_detect(*more, "--model", weights).exit_code == 0
    assert len(list(out.glob("*.luna16.csv"))) == 3


def test_labelled_scans_in_folders_of_one_name(thin, weights, tmp_path):
    entries = []
    for number in range(2):
        folder = tmp_path / f"p{number}"
        folder.mkdir()
        shutil.copy(thin / f"scan{number:02d}.mhd", folder / "ct.mhd")
        shutil.copy(thin / f"scan{number:02d}.zraw", folder)
        entries.append(ScanEntry(folder / "ct.mhd", f"1.2.{number}", f"p{number}", labelled=True))
    detector = make_detector(load_model(str(weights)), torch.device("cpu"))
    options = {"overwrite": False, "resume": False, "notify": lambda _: None}
    first, second = detect_labelled(entries, tmp_path / "out", detector, **options)
    assert first.scan.source.sha256 != second.scan.source.sha256
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["1.2.0.nodules.json", "1.2.1.nodules.json"]
    (tmp_path / "out" / "1.2.0.nodules.json").unlink()
    with pytest.raises(UsageError, match=r"1\.2\.1\.nodules\.json exists already"):
        detect_labelled(entries, tmp_path / "out", detector, **options)
    assert not (tmp_path / "out" / "1.2.0.nodules.json").exists()  # refused before any work
