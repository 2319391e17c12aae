"""Killed at any moment, then resumed: no file is half written, nothing is lost, nothing finished is done again."""

import random
import shutil
import time

import pytest
from cohort.kills import Watch, run_once
from cohort.thin import contents, write_thin_scans
from lock_texts import signed

NOBODY = 4194999  # above any process's number


@pytest.fixture(scope="module")
def few(phantom, tmp_path_factory):
    """Three thin scans and one that cannot be read."""
    folder = write_thin_scans(phantom, tmp_path_factory.mktemp("few"), 3)
    (folder / "spoiled.mha").write_text("hello")
    return folder


@pytest.fixture(scope="module")
def unbroken(few, weights, tmp_path_factory):
    """What a run that nobody disturbs writes, its arguments, and how long it takes."""
    out = tmp_path_factory.mktemp("unbroken")
    arguments = [str(few), "--model", str(weights), "--threads", "1", "--resume", "--out"]
    assert run_once([*arguments, str(out)]) == 8  # the first one waits for the server
    shutil.rmtree(out)
    started = time.monotonic()
    assert run_once([*arguments, str(out)]) == 8
    return arguments, contents(out), time.monotonic() - started


def test_killed_at_random_moments(unbroken, tmp_path):
    """A dozen kills at most: how far a run comes in a time depends on the machine, so the last one has all of it."""
    arguments, wanted, seconds = unbroken
    watch = Watch(tmp_path / "out", wanted)
    draw = random.Random(7)
    codes = []
    while len(codes) < 12 and 8 not in codes:
        codes.append(run_once([*arguments, str(watch.folder)], kill_after_s=draw.uniform(0, 0.9 * seconds)))
        watch.look()
    assert set(codes) <= {-9, 8}
    assert codes.count(-9) > 1
    assert run_once([*arguments, str(watch.folder)]) == 8
    watch.end()


def test_killed_before_every_touch_of_the_folder(unbroken, weights, few, tmp_path):
    """One scan, by a list: before each creation, renaming and removal of a file, one after the other."""
    arguments = [str(few / "scan00.mhd"), str(few / "spoiled.mha"), *unbroken[0][1:]]
    out = tmp_path / "whole"
    assert run_once([*arguments, str(out)]) == 8
    wanted = contents(out)
    kills = 0
    while True:
        watch = Watch(tmp_path / str(kills), wanted)
        watch.folder.mkdir()
        (watch.folder / ".gcnn.lock").write_text(signed(NOBODY))  # to be taken over first
        code = run_once([*arguments, str(watch.folder)], kill_at=kills + 1)
        if code != -9:
            break
        kills += 1
        watch.look()
        assert run_once([*arguments, str(watch.folder)]) == 8
        watch.end()
    assert kills > 20
