"""Temporary folders: private while in use, deleted afterwards, by the next process where their own was killed."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gcnn_cli.scan.scratch import scratch_folder

USER = """
import sys, tempfile, time
from gcnn_cli.scan.scratch import scratch_folder
tempfile.tempdir = sys.argv[1]
with scratch_folder() as folder:
    (folder / "slice.dcm").write_text("a patient")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place of temporary folders."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@contextmanager
def other_process(temporary: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process with a scratch folder in use, killed at the end."""
    with subprocess.Popen([sys.executable, "-c", USER, str(temporary)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_it_is_private_and_deleted_afterwards(temporary: Path) -> None:
    with scratch_folder() as folder:
        assert folder.parent == temporary
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "deep").mkdir()
        (folder / "deep" / "slice.dcm").touch()
    assert list(temporary.iterdir()) == []


def test_an_error_leaves_nothing_behind(temporary: Path) -> None:
    with pytest.raises(KeyError), scratch_folder():
        raise KeyError
    assert list(temporary.iterdir()) == []


def test_the_folder_of_a_killed_process_is_deleted_by_the_next(temporary: Path) -> None:
    with other_process(temporary) as (process, folder):
        process.kill()
        process.wait()
        assert (folder / "slice.dcm").exists()
        with scratch_folder():
            assert not folder.exists()
    assert list(temporary.iterdir()) == []


def test_folders_in_use_are_left_alone(temporary: Path) -> None:
    with other_process(temporary) as (_, folder), scratch_folder() as own, scratch_folder():
        assert (folder / "slice.dcm").exists()
        assert own.exists()


def test_other_files_are_left_alone(temporary: Path) -> None:
    (temporary / "gcnn-notes").mkdir()
    (temporary / "other.lock").touch()
    with scratch_folder():
        pass
    assert sorted(path.name for path in temporary.iterdir()) == ["gcnn-notes", "other.lock"]
