"""One result in every format: they agree on the places, and `gcnn convert` makes them again without the network."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from conftest import make_network
from output.reports import positions_in, report_of
from scan.scans import axial, some_hu, write_series
from typer.testing import CliRunner

from gcnn_cli.cli import app
from gcnn_cli.detection.lungs import segment_lungs
from gcnn_cli.errors import UsageError
from gcnn_cli.network.contract import Calibration, InputSpec
from gcnn_cli.network.weights import TrainedModel, save_model
from gcnn_cli.output.formats import FORMATS, formats_from_scan, output_paths, write_report
from gcnn_cli.output.json_format import report_json
from gcnn_cli.phantom import write_phantom
from gcnn_cli.scan.reading import read_volume

ALL = ",".join(FORMATS)
STAGE = re.compile(rb"thorax\.mhd: (resampling|lungs|candidates|scoring|measuring|writing)")
MASKS = ("mask", "seg")  # of nodules that detection has measured: `output/test_masks.py` has them
PLACED = [name for name in FORMATS if name not in ("png", *MASKS)]  # a picture holds no numbers to compare
REPRODUCED = [*(name for name in PLACED if name != "sr"), "mask"]  # an SR is a new object each time


@pytest.fixture(scope="session")
def scans(phantom, tmp_path_factory):
    """A folder with the coarse phantom as MetaImage and DICOM."""
    folder = tmp_path_factory.mktemp("both")
    write_phantom(phantom, folder, dicom=True)
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A small random network that reports many places."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    model = TrainedModel("small", make_network("O"), InputSpec(spacing_mm=2.0, side=8), Calibration(threshold=0.0))
    save_model(model, path)
    return path


@pytest.fixture(scope="session")
def saved(scans, phantom, tmp_path_factory):
    """The JSON of a result on the DICOM phantom, as it lies beside nothing else."""
    volume = read_volume(scans / "thorax_dicom")
    path = tmp_path_factory.mktemp("saved") / "thorax.nodules.json"
    path.write_text(report_json(report_of(volume, [n.position_mm for n in phantom.nodules])))
    return path


def refusal(result, code):
    """The one line on stderr of a refused command."""
    assert result.exit_code == code, result.output + repr(result.exception)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def agree(paths, wanted, *, within_mm=0.01):
    """Whether all files of one result hold the same positions, in the same order."""
    for path in paths:
        found = positions_in(path)
        assert found.shape == wanted.shape, path.name
        if len(wanted):
            assert np.abs(found - wanted).max() < within_mm, path.name


def test_one_command_writes_every_format_and_convert_makes_the_same(run, scans, weights, tmp_path):
    # At 0.488 this network reports about thirty places.
    detected = run(
        *("detect", scans / "thorax_dicom", "--model", weights, "--threshold", "0.488", "--format", ALL),
        *("--out", "a", "-q"),
    )
    assert detected.exit_code == 0, detected.output
    paths = output_paths(scans / "thorax_dicom", tmp_path / "a", tuple(FORMATS))
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted(p.name for p in paths.values())
    data = json.loads(paths["json"].read_text())
    wanted = np.array([nodule["position_mm"] for nodule in data["nodules"]])
    assert 3 < len(wanted) < 50
    agree([paths[name] for name in PLACED], wanted)

    converted = run(
        "convert",
        paths["json"],
        "--format",
        ",".join([*PLACED, "mask"]),
        "--scan",
        scans / "thorax_dicom",
        "--out",
        tmp_path / "b",
    )
    assert converted.exit_code == 0, converted.output
    for name in REPRODUCED:
        assert paths[name].read_bytes() == (tmp_path / "b" / paths[name].name).read_bytes(), name
    agree([tmp_path / "b" / paths["sr"].name], wanted)
    assert converted.stdout.splitlines() == [str(tmp_path / "b" / paths[name].name) for name in (*PLACED, "mask")]


@pytest.mark.parametrize("count", [3, 0])
def test_all_formats_agree_on_the_phantom(scans, phantom, tmp_path, count):
    volume = read_volume(scans / "thorax_dicom")
    wanted = np.array([n.position_mm for n in phantom.nodules[:count]]).reshape(-1, 3)
    paths = output_paths(tmp_path, tmp_path, tuple(name for name in FORMATS if name not in MASKS))
    write_report(report_of(volume, wanted), paths, scan=volume, overwrite=False)
    agree([paths[name] for name in PLACED], wanted)


@pytest.mark.data
def test_all_formats_agree_on_a_real_series(shared_data, tmp_path):
    volume = read_volume(shared_data / "dicom" / "LIDC-IDRI-0001")
    wanted = volume.position_mm(np.array([[89.8, 366.8, 316.5], [12.345, 200.678, 300.901]]))
    paths = output_paths(tmp_path, tmp_path, tuple(PLACED))
    write_report(report_of(volume, wanted), paths, scan=volume, overwrite=False)
    agree(paths.values(), wanted)


def test_agreement_can_fail(tmp_path):
    path = tmp_path / "a.luna16.csv"
    path.write_text("seriesuid,coordX,coordY,coordZ,probability\na,1.02,2,3,0.5\n")
    with pytest.raises(AssertionError):
        agree([path], np.array([[1.0, 2, 3]]))


@pytest.fixture
def segmentations(monkeypatch):
    """One entry for each time that lungs are segmented."""
    counted = []

    def segment(grid, config):
        counted.append(grid.shape)
        return segment_lungs(grid, config)

    for module in ("gcnn_cli.detection.pipeline", "gcnn_cli.output.pictures.saved_lungs"):
        monkeypatch.setattr(f"{module}.segment_lungs", segment)
    return counted


def test_lungs_are_segmented_once_for_nodules_and_all_pictures(run, scans, weights, tmp_path, segmentations):
    scan = scans / "thorax.mhd"
    detected = run("detect", scan, "--model", weights, "--threshold", "0.488", "--format", "json,html,png", "-q")
    assert detected.exit_code == 0, detected.output
    assert len(segmentations) == 1
    converted = run("convert", "thorax.nodules.json", "--format", "html,png", "--scan", scan, "--out", "again")
    assert converted.exit_code == 0, converted.output
    assert len(segmentations) == 2
    for name in ("thorax.nodules.html", "thorax.nodules.png"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_pictures_show_the_lung_mask_that_was_given(run, scans, weights, phantom, tmp_path, segmentations):
    """The left lung alone; `gcnn convert` shows the same, and neither segments."""
    left = phantom.lungs.copy()
    left[:, :, : left.shape[2] // 2] = False
    for name, mask in (("left.nrrd", left), ("both.nrrd", phantom.lungs)):
        image = sitk.GetImageFromArray(mask.astype(np.uint8))
        image.CopyInformation(sitk.ReadImage(str(scans / "thorax.mhd")))
        sitk.WriteImage(image, str(tmp_path / name))
    common = ("--model", weights, "--threshold", "0.488", "--format", "json,html,png", "-q")
    for name in ("left", "both"):
        assert run("detect", scans / "thorax.mhd", *common, "--lung-mask", f"{name}.nrrd", "--out", name).exit_code == 0
    pictures = {path: path.read_bytes() for path in tmp_path.glob("*/thorax.nodules.[hp]*")}
    assert len(pictures) == len(set(pictures.values())) == 4
    left_mm, both_mm = (
        float(re.search(r"aspect-ratio: ([\d.]+) / ", (tmp_path / name / "thorax.nodules.html").read_text())[1])
        for name in ("left", "both")
    )
    assert left_mm < 0.7 * both_mm  # the map from the front

    again = ("convert", "left/thorax.nodules.json", "--scan", scans / "thorax.mhd", "--out", "again")
    assert run(*again, "--format", "html,png", "--lung-mask", "left.nrrd").exit_code == 0
    for path in (tmp_path / "again").iterdir():
        assert path.read_bytes() == pictures[tmp_path / "left" / path.name]
    assert segmentations == []
    assert "give that mask with --lung-mask" in refusal(run(*again, "--format", "png", "--overwrite"), 2)
    other = run(*again, "--format", "png", "--overwrite", "--lung-mask", "both.nrrd")
    assert "not the lung mask of this result" in refusal(other, 3)
    assert "--lung-mask is for html, png, mask and seg" in refusal(
        run(*again, "--format", "csv", "--lung-mask", "left.nrrd"), 2
    )


def test_numbers_are_converted_without_the_scan(run, saved, tmp_path):
    names = [name for name in FORMATS if name not in formats_from_scan(tuple(FORMATS))]
    assert names == ["csv", "json", "luna16", "slicer", "grand-challenge"]
    assert run("convert", saved, "--format", ",".join(names)).exit_code == 0
    wanted = np.array([n["position_mm"] for n in json.loads(saved.read_text())["nodules"]])
    agree(list(tmp_path.iterdir()), wanted)


def test_an_sr_can_be_made_of_a_zip(run, saved, scans, tmp_path):
    shutil.make_archive(str(tmp_path / "study"), "zip", scans / "thorax_dicom")
    assert run("convert", saved, "--format", "sr", "--scan", "study.zip").exit_code == 0
    agree([tmp_path / "thorax.nodules.sr.dcm"], np.array(positions_in(saved)))


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--format", "html"], 2, "html: the scan is needed; give it with --scan"),
        (["--format", "csv,png,sr"], 2, "png and sr: the scan is needed"),
        (["--format", "sr", "--scan", "MHD"], 2, "refers to a DICOM series"),
        (["--format", "xml"], 2, "unknown format 'xml'"),
        (["--format", "csv,html", "--scan", "OTHER"], 3, "no series 2.25."),
        (["--format", "csv,html", "--scan", "none.mhd"], 3, "no such file"),
        (["--format", "csv,html", "--scan", "CHANGED"], 3, "not the scan of this result"),
    ],
)
def test_refusals_write_nothing(run, saved, scans, phantom, tmp_path, arguments, code, text):
    def lighter(number, dataset):
        dataset.RescaleIntercept = -1023

    series = json.loads(saved.read_text())["input"]["seriesuid"]
    places = {"MHD": scans / "thorax.mhd", "OTHER": tmp_path / "other", "CHANGED": tmp_path / "changed"}
    if "OTHER" in arguments:
        write_series(places["OTHER"], some_hu(), axial())
    if "CHANGED" in arguments:
        volume = phantom.volume
        write_series(places["CHANGED"], volume.hu, volume.to_world, series=series, edit=lighter)
    result = run("convert", saved, "--out", "new", *(places.get(a, a) for a in arguments))
    assert text in refusal(result, code)
    assert not (tmp_path / "new").exists()


def test_the_same_scan_in_another_format_will_do(run, saved, scans, tmp_path):
    """The checksum is of the voxels and their place, so a MetaImage of the series makes the same pictures."""
    assert run("convert", saved, "--format", "html,luna16", "--scan", scans / "thorax.mhd").exit_code == 0
    assert "thorax.mhd (metaimage)" in (tmp_path / "thorax.nodules.html").read_text()
    rows = (tmp_path / "thorax.luna16.csv").read_text().splitlines()[1:]
    series = json.loads(saved.read_text())["input"]["seriesuid"]
    assert {row.split(",")[0] for row in rows} == {series}  # not the name of the file, which no table has


def test_nothing_is_replaced_unasked(run, saved, tmp_path):
    shutil.copy(saved, tmp_path)
    assert "exists already" in refusal(run("convert", "thorax.nodules.json", "--format", "csv,json"), 2)
    assert [p.name for p in tmp_path.iterdir()] == ["thorax.nodules.json"]
    assert run("convert", "thorax.nodules.json", "--format", "csv,json", "--overwrite").exit_code == 0


def test_nothing_is_written_when_a_later_format_is_refused(phantom, tmp_path):
    paths = output_paths(tmp_path / "a.mhd", tmp_path, ("csv", "sr"))
    with pytest.raises(UsageError, match="this is an image file"):
        write_report(report_of(phantom.volume, []), paths, scan=phantom.volume, overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_detect_refuses_an_sr_of_a_file_before_it_reads_anything(run, tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"not even an image")
    result = run("detect", "a.nii.gz", "--format", "csv,sr")
    assert "refers to a DICOM series" in refusal(result, 2)


def test_the_progress_line_names_scan_and_stage(scans, weights, tmp_path):
    """On a terminal; in a pipe there is none (test_cli)."""
    theirs, ours = pty.openpty()
    command = [sys.executable, "-c", "from gcnn_cli.cli import main; main()", "detect", "--model", str(weights)]
    command += ["--threshold", "0.9"]
    process = subprocess.Popen(
        [*command, str(scans / "thorax.mhd")],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=ours,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(ours)
    shown = b""
    try:
        while not STAGE.search(shown):
            shown += os.read(theirs, 4096)  # fails when the process has ended without naming one
    finally:
        process.kill()
        process.wait()
        os.close(theirs)


def test_info_describes_the_system(run):
    rows = {row["what"]: row["value"] for row in json.loads(run("info", "--system", "--json").stdout)}
    assert rows["gcnn"]
    assert rows["torch"][0].isdigit()
    assert "scores in" in rows["device cpu"]
    assert int(rows["threads"]) >= 1
    assert "either a scan or --system" in refusal(run("info"), 2)
    assert "either a scan or --system" in refusal(run("info", "a.mhd", "--system"), 2)


def test_models_are_listed_with_their_figures(run, root):
    (row,) = (r for r in json.loads(run("models", "--json").stdout) if r["name"] == "octahedral")
    path = root / "models" / "octahedral.safetensors"
    assert (row["group"], row["bytes"], len(row["sha256"])) == ("O", path.stat().st_size, 64)
    assert 0.5 < row["measured"]["auc"] <= 1
    assert row["card"].endswith("octahedral.md")
    table = run("models").stdout
    for text in ("octahedral", "1.1 MB", row["sha256"], "auc"):
        assert text in table


def test_verify_draws_the_error_of_each_element(run, weights, tmp_path):
    assert run("verify", weights, "--plot", "error.png").exit_code == 0
    assert (tmp_path / "error.png").read_bytes().startswith(b"\x89PNG")
    assert "exists already" in refusal(run("verify", weights, "--plot", "error.png"), 2)
