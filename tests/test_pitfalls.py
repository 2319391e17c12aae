"""Inputs that break tools of this kind, from outside: the exit code and the one line, or the right places.

The table in README.md here lists every case with its test; what other tests hold already is not repeated.
"""

import ast
import csv
import json
import os
import re
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from conftest import make_network
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage, MRImageStorage, SecondaryCaptureImageStorage
from scan.images.test_metaimage import changed
from scan.images.test_nifti import SFORM_CODE, SHEAR, SROW, spoiled
from scan.scans import axial, oblique, some_hu, write_series
from scan.test_reading import stacked, write_file
from typer.testing import CliRunner

from gcnn_cli import NOTICE
from gcnn_cli.cli import app
from gcnn_cli.detection.detector import DetectionConfig, Detector
from gcnn_cli.detection.pipeline import detect
from gcnn_cli.detection.proposals import ProposalConfig, load_proposer
from gcnn_cli.network.contract import Calibration, InputSpec
from gcnn_cli.network.inference import make_scorer
from gcnn_cli.network.weights import TrainedModel, load_model, save_model
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.volume import Volume


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_model(TrainedModel("small", make_network("O"), InputSpec(spacing_mm=2.0, side=8), Calibration()), path)
    return path


@pytest.fixture
def run(weights, tmp_path, monkeypatch):
    """Run `gcnn detect` in an empty folder beside the inputs."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return lambda *arguments: CliRunner().invoke(app, ["detect", "--model", str(weights), *map(str, arguments)])


def error_line(result, code) -> str:
    """The one line of a refused command, without the notice; stdout must be empty and the folder too."""
    assert result.exit_code == code, result.output + repr(result.exception)
    assert result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if line != NOTICE]
    assert line.startswith("error: ")
    assert list(Path.cwd().iterdir()) == []
    return line


# What is refused: how it is made in a folder, the exit code, a part of the line.


def series(folder: Path, edit=lambda number, dataset: None, to_world=None, **options) -> Path:
    return write_series(folder / "series", some_hu(), axial() if to_world is None else to_world, edit=edit, **options)


def every(**elements):
    return lambda number, dataset: dataset.update(elements)


def only(wanted: int, **elements):
    return lambda number, dataset: dataset.update(elements if number == wanted else {})


def tilted(folder: Path) -> Path:
    to_world = axial()
    to_world[1, 0] = np.tan(np.radians(20)) * 2.5
    return series(folder, to_world=to_world)


def gap(folder: Path) -> Path:
    made = write_series(folder / "series", some_hu((10, 6, 7)), axial())
    (made / "004.dcm").unlink()
    return made


def two_phases(folder: Path) -> Path:
    series(folder)
    return write_series(folder / "series" / "late", some_hu(seed=1), axial()).parent


def two_series(folder: Path) -> Path:
    series(folder)
    return write_series(folder / "series", some_hu(seed=1), axial(), series="1.2.3", name="b{}.dcm".format)


def another_size(number: int, dataset: Dataset) -> None:
    if number == 2:
        dataset.Rows, dataset.Columns = 7, 6


def without_rescale(number: int, dataset: Dataset) -> None:
    del dataset.RescaleSlope, dataset.RescaleIntercept


def metaimage(folder: Path, field: str, value: str) -> Path:
    return changed(write_file(folder / "a.mha", some_hu(), axial()), field, value)


def missing_raw(folder: Path) -> Path:
    path = write_file(folder / "a.mhd", some_hu(), axial())
    (folder / "a.raw").unlink()
    return path


def cut_zraw(folder: Path) -> Path:
    path = write_file(folder / "packed.mhd", some_hu(), axial())
    (folder / "packed.zraw").write_bytes((folder / "packed.zraw").read_bytes()[:100])
    return path


def image(folder: Path, name: str, made: sitk.Image) -> Path:
    sitk.WriteImage(made, str(folder / name))
    return folder / name


def values(folder: Path, array: np.ndarray, to_world=None) -> Path:
    return write_file(folder / "a.nii.gz", array, axial() if to_world is None else to_world)


def text(folder: Path) -> Path:
    (folder / "scan.txt").write_text("x" * 500)
    return folder / "scan.txt"


def folder_as_file(folder: Path) -> Path:
    (folder / "scan.nii.gz").mkdir()
    return folder / "scan.nii.gz"


def no_lung(folder: Path) -> Path:
    hu = np.full((40, 40, 40), -1000, np.int16)
    hu[5:-5, 5:-5, 5:-5] = 40
    return values(folder, hu, np.diag([2.0, 2, 2, 1])[[2, 1, 0, 3]])


LOCALIZER = every(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
DOSE = every(Modality="SR", SOPClassUID=ComprehensiveSRStorage)
ODD = np.where(some_hu() == 0, np.nan, some_hu()).astype(np.float32)
REFUSED = {
    "a missing slice": (gap, 5, "slices 4 and 5 (at -292.50 and -287.50 mm) are 5 mm apart, the others 2.5 mm"),
    "gantry tilt": (tilted, 5, "sheared by 20.0 degrees (gantry tilt)"),
    "two slices at one place": (two_phases, 5, "two different slices lie at the same place"),
    "two series": (two_series, 4, "2 CT series found; choose one with --series"),
    "a localizer alone": (lambda f: series(f, LOCALIZER), 3, "no usable CT series (localizer)"),
    "a dose report alone": (lambda f: series(f, DOSE), 3, "no usable CT series (not a CT image (SR))"),
    "not CT": (lambda f: series(f, every(Modality="MR", SOPClassUID=MRImageStorage)), 3, "not a CT image (MR)"),
    "a dose summary stored as CT": (
        lambda f: series(f, every(SOPClassUID=SecondaryCaptureImageStorage)), 3,
        "no usable CT series (a secondary capture, not a CT image)",
    ),
    "mixed orientations": (
        lambda f: series(f, only(2, ImageOrientationPatient=[0, 1, 0, 1, 0, 0])), 5, "mixes slice orientations",
    ),
    "mixed matrix sizes": (lambda f: series(f, another_size), 5, "mixes matrix sizes: [6, 7] and [7, 6]"),
    "rescale absent": (lambda f: series(f, without_rescale), 3, "Hounsfield units: values run from"),
    "voxels above 6 mm": (
        lambda f: series(f, to_world=axial((6.5, 0.8, 0.7))), 5, "slices are 6.50 mm apart: too coarse",
    ),
    "data file missing": (missing_raw, 3, "its data file 'a.raw' is missing"),
    "compressed data cut": (cut_zraw, 3, "packed.zraw: truncated"),
    "not orthonormal": (lambda f: metaimage(f, "TransformMatrix", "1 0.1 0 0 1 0 0 0 1"), 5, "not orthonormal"),
    "spacing of zero": (lambda f: metaimage(f, "ElementSpacing", "0 0.8 2.5"), 5, "must be positive"),
    "negative spacing": (lambda f: metaimage(f, "ElementSpacing", "-0.7 0.8 2.5"), 5, "must be positive"),
    "sheared sform": (
        lambda f: spoiled(write_file(f / "a.nii", some_hu(), axial()), (SFORM_CODE, "h", (1,)), (SROW, "12f", SHEAR)),
        5, "sform is sheared by 5.7 degrees",
    ),
    "NIfTI without HU": (lambda f: values(f, np.arange(210).reshape(5, 6, 7).astype(np.uint8)), 3, "from 0 to 209"),
    "NaN": (lambda f: values(f, ODD), 3, "a.nii.gz: holds NaN or infinite values"),
    "infinite": (lambda f: values(f, np.nan_to_num(ODD, nan=np.inf)), 3, "a.nii.gz: holds NaN or infinite values"),
    "4-D": (lambda f: image(f, "a.nii", stacked((2, 5, 6, 7))), 3, "holds 2 volumes"),
    "2-D": (lambda f: image(f, "a.mha", stacked((6, 7))), 3, "at least two slices"),
    "color": (lambda f: image(f, "a.nrrd", stacked((5, 6, 7, 3), vector=True)), 3, "color or vector image"),
    "text": (text, 3, "not a supported scan: give a DICOM folder or zip"),
    "a folder named as a file": (folder_as_file, 3, "no DICOM series in this folder"),
    "no lung": (no_lung, 3, "no lung found"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(run, tmp_path, case):
    make, code, reason = REFUSED[case]
    assert reason in error_line(run(make(tmp_path)), code)


# What is read right although it breaks other tools.


@pytest.fixture(scope="module")
def shipped():
    model = load_model("octahedral")
    config = DetectionConfig(proposals=ProposalConfig(kept=30))
    return Detector(model, make_scorer(model.network, torch.device("cpu")), load_proposer(torch.device("cpu")), config)


def hit(report, nodule) -> bool:
    away = [np.linalg.norm(np.subtract(n.position_mm, nodule.position_mm)) for n in report.nodules]
    return min(away, default=np.inf) < nodule.diameter_mm / 2


def test_ten_slices_are_enough(phantom, shipped):
    """A stack of 22 mm, less than the 30 mm of a patch: what lies beyond is air, and places stay right."""
    nodule = max(phantom.nodules, key=lambda n: n.diameter_mm * (n.kind == "solid"))
    start = round(phantom.volume.index_zyx(np.array(nodule.position_mm))[0]) - 5
    to_world = phantom.volume.to_world.copy()
    to_world[:3, 3] = phantom.volume.position_mm(np.array([start, 0, 0]))
    volume = Volume(phantom.volume.hu[start : start + 10].copy(), to_world)
    report = detect(volume, shipped, threshold=0.3)
    assert hit(report, nodule)
    assert all(1 <= n.slice <= 10 for n in report.nodules)


def test_slices_of_5_mm_are_read_and_large_nodules_found(phantom, shipped):
    to_world = phantom.volume.to_world @ np.diag([2.0, 1, 1, 1])
    volume = Volume(phantom.volume.hu[::2].copy(), to_world)
    assert volume.spacing_zyx[0] == 5
    report = detect(volume, shipped, threshold=0.3)
    large = [n for n in phantom.nodules if n.diameter_mm >= 10 and n.kind == "solid"]
    assert large
    assert all(hit(report, n) for n in large)


def test_reading_takes_little_more_than_the_scan(tmp_path):
    """At any size, so at 512 x 512 x 800 (0.4 GB) too. The memory of the rest of the way is a matter of benchmarks."""
    hu = np.resize(np.arange(-1000, 400, dtype=np.int16), (80, 128, 128))
    folder = write_series(tmp_path, hu, axial())
    tracemalloc.start()
    volume = read_volume(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert volume.hu.nbytes == 2 * hu.size
    assert peak < 2.3 * volume.hu.nbytes


# Names


@pytest.mark.parametrize("name", ["a b. c .mha", "肺 ü 'x' \"y\".nii.gz", "-x.mha", "056.mha", "x" * 200 + ".mha"])
def test_any_name_is_kept(run, phantom, tmp_path, name):
    path = write_file(tmp_path / name, phantom.volume.hu, phantom.volume.to_world)
    done = run("--threshold", "0.5", "-q", "--", path)
    assert done.exit_code == 0, done.output
    stem = name.removesuffix(".nii.gz").removesuffix(".mha")
    assert sorted(p.name for p in Path.cwd().iterdir()) == [f"{stem}.nodules.csv", f"{stem}.nodules.json"]
    assert json.loads(Path(f"{stem}.nodules.json").read_text("utf-8"))["input"]["seriesuid"] == stem
    with Path(f"{stem}.nodules.csv").open(encoding="utf-8") as file:
        assert {row["seriesuid"] for row in csv.DictReader(file)} <= {stem}


def test_a_name_that_is_no_text_is_refused(run, tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/scan\xff.mha"))
    try:
        shutil.copy(write_file(tmp_path / "a.mha", some_hu(), axial()), path)
    except OSError:
        pytest.skip("this file system has no such names")
    line = error_line(run(path), 3)
    assert "its name is not text" in line
    assert "scan\\udcff.mha" in line


def test_a_line_break_in_a_name_stays_in_the_line(run, tmp_path):
    (tmp_path / "a\nb\x1b[31m").mkdir()
    assert "a\\nb\\x1b[31m: no DICOM series" in error_line(run(tmp_path / "a\nb\x1b[31m"), 3)


@pytest.mark.parametrize(("name", "code"), [("x" * 300 + ".mha", 9), ("d/" * 3000 + "a.mha", 3)])
def test_a_path_that_is_too_long_is_one_line(run, name, code):
    """Of the first, the results' names would be too long as well, which is looked at before."""
    assert "File name too long" in error_line(run(name), code)


def test_results_whose_names_would_be_too_long_are_refused_before_any_work(run, tmp_path):
    path = write_file(tmp_path / ("x" * 250 + ".mha"), some_hu(), axial())
    assert "File name too long" in error_line(run(path), 9)


# Devices


def test_auto_says_that_it_fell_back(run, sample):
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("there is a GPU here")
    done = run(sample, "-v", "--threshold", "1")
    assert done.exit_code == 0, done.output
    assert "no GPU found: running on the CPU" in done.stderr
    assert json.loads(Path("thorax.nodules.json").read_text())["options"]["gaps_filled"] is False


# --allow-gaps


def with_gap(folder: Path, phantom, gone: int) -> Path:
    """The phantom as a series without its middle slices."""
    made = write_series(folder / "series", phantom.volume.hu, phantom.volume.to_world)
    middle = phantom.volume.shape[0] // 2
    for number in range(middle, middle + gone):
        (made / f"{number:03d}.dcm").unlink()
    return made


def test_allow_gaps_fills_warns_and_records(run, phantom, tmp_path):
    folder = with_gap(tmp_path, phantom, 1)
    depth = phantom.volume.shape[0]
    assert "(--allow-gaps interpolates over it)" in error_line(run(folder), 5)
    done = run(folder, "--allow-gaps", "--threshold", "0.4", "--format", "json,html,sr")
    assert done.exit_code == 0, done.output
    assert f"1 of {depth} slices were interpolated; nodules in a gap can be missed" in done.stderr
    report = json.loads(Path("series.nodules.json").read_text())
    assert report["options"]["gaps_filled"] is True
    assert report["input"]["size"][2] == depth
    assert "interpolated" in report["warnings"][0]
    assert f"gaps filled from {depth - 1} slices" in report["input"]["geometry"][-1]
    np.testing.assert_allclose(report["input"]["spacing_mm"][2], phantom.volume.spacing_zyx[0], atol=1e-6)
    uids = {path.name: f"1.2.826.0.1.2.{int(path.stem) + 1}" for path in folder.iterdir()}
    assert {n["sop_instance_uid"] for n in report["nodules"]} <= set(uids.values())
    assert "interpolated" in Path("series.nodules.html").read_text()
    filled = read_volume(folder, allow_gaps=True)
    np.testing.assert_allclose(filled.to_world, phantom.volume.to_world, atol=1e-5)
    others = np.arange(depth) != depth // 2
    np.testing.assert_array_equal(filled.hu[others], phantom.volume.hu[others])
    # A saved result is converted with the gap filled again.
    again = CliRunner().invoke(
        app, ["convert", "series.nodules.json", "--format", "html,sr", "--scan", str(folder), "--out", "again"]
    )
    assert again.exit_code == 0, again.output
    assert Path("again/series.nodules.html").read_bytes() == Path("series.nodules.html").read_bytes()


def test_allow_gaps_refuses_a_wide_gap(run, phantom, tmp_path):
    folder = with_gap(tmp_path, phantom, 2)
    line = error_line(run(folder, "--allow-gaps"), 5)
    assert "are 7.5 mm apart, the others 2.5 mm; a gap of more than 6 mm is not filled" in line
    assert "--allow-gaps" not in error_line(run(folder), 5)


def test_info_judges_with_and_without(phantom, tmp_path):
    folder = with_gap(tmp_path, phantom, 1)
    rows = []
    for options in ((), ("--allow-gaps",)):
        done = CliRunner().invoke(app, ["info", str(folder), "--json", *options])
        assert done.exit_code == 0
        rows += json.loads(done.stdout)
    assert rows[0]["geometry"].endswith("is the series complete? (--allow-gaps interpolates over it)")
    assert rows[1]["geometry"].startswith("sound: ")
    assert rows[1]["size"][2] == rows[0]["size"][2] + 1 == phantom.volume.shape[0]
    assert "slices were interpolated" in rows[1]["warnings"]


def test_oblique_stacks_have_their_gaps_filled_too(run, tmp_path):
    folder = write_series(tmp_path / "series", some_hu((10, 6, 7)), oblique())
    (folder / "004.dcm").unlink()
    assert "no lung found" in error_line(run(folder, "--allow-gaps", "-q"), 3)  # read, and then it is no chest


def test_every_test_of_the_table_exists():
    tests = Path(__file__).parent
    named = re.findall(r"`([a-z_/]+\.py)::(\w+)`", (tests / "README.md").read_text("utf-8"))
    assert len(named) > 100
    for file, name in named:
        functions = {
            n.name for n in ast.parse((tests / file).read_text("utf-8")).body if isinstance(n, ast.FunctionDef)
        }
        assert name in functions, f"{file}::{name}"
