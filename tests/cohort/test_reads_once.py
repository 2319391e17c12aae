"""Each file of a DICOM series is read once: on a network share, reading takes most of the time."""

from collections import Counter
from pathlib import Path

import pydicom
import pytest
import torch
from cohort.thin import run_detect, thin_scan

from gcnn_cli.cohort import scans
from gcnn_cli.cohort.jobs import make_job, run_job
from gcnn_cli.cohort.request import Request
from gcnn_cli.cohort.scans import find_cohort
from gcnn_cli.detection.detector import make_detector
from gcnn_cli.network.weights import load_model
from gcnn_cli.phantom import Phantom
from gcnn_cli.scan import folders
from gcnn_cli.scan.dicom import evidence, series
from gcnn_cli.scan.writing import write_dicom_series


@pytest.fixture
def folder(phantom: Phantom, tmp_path: Path) -> Path:
    """A DICOM series of a few slices."""
    write_dicom_series(thin_scan(phantom, 3), tmp_path / "series", description="thin")
    return tmp_path / "series"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """Counts by file name and by what is read of it, and of searches for files."""
    counted: Counter[tuple[str, str]] = Counter()
    read, search_files = pydicom.dcmread, folders.visible_files

    def counted_read(file, **options):
        counted[Path(file.name).name, "header" if options.get("stop_before_pixels") else "pixels"] += 1
        return read(file, **options)

    def counted_search(*arguments):
        counted["folder", "files"] += 1
        return search_files(*arguments)

    monkeypatch.setattr(pydicom, "dcmread", counted_read)
    for module in (scans, series, evidence):
        monkeypatch.setattr(module, "visible_files", counted_search)
    return counted


def expected(folder: Path, headers: int) -> dict[tuple[str, str], int]:
    names = [path.name for path in folder.iterdir()]
    return {(name, "header"): headers for name in names} | {(name, "pixels"): 1 for name in names}


def test_a_single_folder_is_searched_once_and_each_header_read_once(folder, weights, reads, tmp_path) -> None:
    done = run_detect(folder, "--model", weights, "--out", tmp_path / "out", "--quiet")
    assert done.exit_code == 0, done.output
    assert reads == {**expected(folder, headers=1), ("folder", "files"): 1}


def test_an_sr_reads_the_whole_headers_once_more(folder, weights, reads, tmp_path) -> None:
    """They name the patient, and are not kept from the first time."""
    pytest.importorskip("highdicom", reason="the dicom extra is not installed")
    done = run_detect(folder, "--model", weights, "--out", tmp_path / "out", "--format", "sr", "--quiet")
    assert done.exit_code == 0, done.output
    assert reads == {**expected(folder, headers=2), ("folder", "files"): 2}


def test_a_cohort_keeps_no_headers_of_all_its_scans(folder, phantom, tmp_path) -> None:
    write_dicom_series(thin_scan(phantom, 4), tmp_path / "other", description="thin")
    listed = tmp_path / "list.txt"
    listed.write_text(f"{folder}\n{tmp_path / 'other'}\n")
    for arguments in ([folder, tmp_path / "other"], [tmp_path], [Path(f"@{listed}")]):
        scans = find_cohort(arguments).scans
        assert len(scans) == 2
        assert all(scan.found is None for scan in scans)
    assert find_cohort([folder]).scans[0].found


def test_what_was_found_is_not_used_from_another_folder(folder, weights, tmp_path, monkeypatch) -> None:
    """Paths are as the user named them; a worker may run elsewhere."""
    monkeypatch.chdir(tmp_path)
    (scan,) = find_cohort([Path("series")]).scans
    job = make_job(scan, Request((), None, threshold=0.0))
    monkeypatch.chdir(folder)
    result = run_job(job, make_detector(load_model(str(weights)), torch.device("cpu"), average_over="trivial"))
    assert result.failure is None
    assert result.report is not None
    assert result.report.scan.source.path == "series"
