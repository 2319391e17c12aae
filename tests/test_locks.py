"""One process at a time, whatever became of the one before."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gcnn_cli.errors import OutputError
from gcnn_cli.locks import claimed


@pytest.fixture
def dead():
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_lock_is_held_by_one_and_given_back(tmp_path):
    lock = tmp_path / "new" / "a.lock"
    with claimed(lock) as holder:
        assert holder == ""
        with claimed(lock) as other:
            assert other == f"process {os.getpid()} on {socket.gethostname()}"
        assert lock.is_file()  # who did not get it does not give it back
    assert list(lock.parent.iterdir()) == []
    with claimed(lock) as holder:
        assert holder == ""


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path, dead):
    lock = tmp_path / "a.lock"
    lock.write_text(f"{socket.gethostname()} {dead}")
    with claimed(lock) as holder:
        assert holder == ""
        assert lock.read_text().split()[:2] == [socket.gethostname(), str(os.getpid())]
    assert list(tmp_path.iterdir()) == []


def test_another_machines_lock_stands(tmp_path, dead):
    lock = tmp_path / "a.lock"
    lock.write_text(f"elsewhere {dead}")
    with claimed(lock) as holder:
        assert holder == f"process {dead} on elsewhere"
    assert lock.read_text() == f"elsewhere {dead}"


def test_an_unsigned_lock_stands_for_seconds_only(tmp_path):
    lock = tmp_path / "a.lock"
    lock.write_text("")
    with claimed(lock) as holder:
        assert "just begun" in holder
    os.utime(lock, (0, 0))  # its process was killed between creating and signing it
    with claimed(lock) as holder:
        assert holder == ""


def test_a_lock_that_came_in_the_meantime_is_left_alone(tmp_path, dead, monkeypatch):
    lock = tmp_path / "a.lock"
    lock.write_text(f"{socket.gethostname()} {dead}")

    def look_then_let_another_take_over(number, _):
        lock.write_text("elsewhere 7")
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", look_then_let_another_take_over)
    with claimed(lock) as holder:
        assert holder == "process 7 on elsewhere"
    assert lock.read_text() == "elsewhere 7"


def test_a_folder_that_takes_no_lock(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"), claimed(tmp_path / "file" / "a.lock"):
        pass


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system does not tell when a process began")
def test_a_number_that_is_used_again_is_another_process(tmp_path):
    """After a restart, of a container above all, numbers begin anew."""
    lock = tmp_path / "a.lock"
    lock.write_text(f"{socket.gethostname()} {os.getpid()} 1")
    with claimed(lock) as holder:
        assert holder == ""
        with claimed(lock) as other:
            assert other == f"process {os.getpid()} on {socket.gethostname()}"
