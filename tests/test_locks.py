"""One process at a time, whatever became of the one before."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from lock_texts import signed

from gcnn_cli.errors import OutputError
from gcnn_cli.locks import claimed


@pytest.fixture
def dead():
    """Return the number of a process that has ended."""
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
    lock.write_text(signed(dead))
    with claimed(lock) as holder:
        assert holder == ""
        assert lock.read_text().split()[0] == str(os.getpid())
    assert list(tmp_path.iterdir()) == []


def test_another_machines_lock_stands(tmp_path, dead):
    lock = tmp_path / "a.lock"
    lock.write_text(signed(dead, "elsewhere"))
    with claimed(lock) as holder:
        assert holder == f"process {dead} on elsewhere"
    assert lock.read_text() == signed(dead, "elsewhere")


def test_another_containers_lock_stands_and_is_named_by_its_host(tmp_path, dead):
    """Containers may share a host's name and number their processes separately."""
    lock = tmp_path / "a.lock"
    lock.write_text(signed(dead, "node1?pidns-f00"))
    with claimed(lock) as holder:
        assert holder == f"process {dead} on node1"


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
    lock.write_text(signed(dead))

    def look_then_let_another_take_over(number, _):
        if number == dead:
            lock.unlink()
            lock.write_text(signed(7, "elsewhere"))
        raise ProcessLookupError(errno.ESRCH, "no such process")

    monkeypatch.setattr(os, "kill", look_then_let_another_take_over)
    with claimed(lock) as holder:
        assert holder == "process 7 on elsewhere"
    assert lock.read_text() == signed(7, "elsewhere")
    assert list(tmp_path.iterdir()) == [lock]


@pytest.mark.parametrize("operation", ["break", "restore"])
def test_leftovers_of_a_killed_takeover_go_with_the_lock(tmp_path, dead, operation):
    lock = tmp_path / "a.lock"
    (tmp_path / f"a.lock.{operation}.{dead}.{'0' * 32}").write_text(signed(dead))
    (tmp_path / "a.lock.alive").write_text(signed(os.getppid()))
    with claimed(lock) as holder:
        assert holder == ""
    assert [path.name for path in tmp_path.iterdir()] == ["a.lock.alive"]


def test_a_folder_that_takes_no_lock(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"), claimed(tmp_path / "file" / "a.lock"):
        pass


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system does not tell when a process began")
def test_a_number_that_is_used_again_is_another_process(tmp_path):
    """After a restart, of a container above all, numbers begin anew."""
    lock = tmp_path / "a.lock"
    lock.write_text(signed(os.getpid(), began=1))
    with claimed(lock) as holder:
        assert holder == ""
        with claimed(lock) as other:
            assert other == f"process {os.getpid()} on {socket.gethostname()}"
