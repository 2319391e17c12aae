"""gcnn from Python: the same result for a path, an image and an array; saved, shown and evaluated."""

import base64
import json
import re

import jsonschema
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from conftest import make_network, turned

import gcnn_cli as gcnn
from gcnn_cli.detection.detector import make_detector
from gcnn_cli.network.contract import Calibration, InputSpec
from gcnn_cli.network.weights import TrainedModel, save_model
from gcnn_cli.output.json_format import report_schema
from gcnn_cli.phantom import write_phantom
from gcnn_cli.scan.arrays import as_volume
from gcnn_cli.scan.resample import as_image

SMALL = TrainedModel("small", make_network("O"), InputSpec(spacing_mm=2.0, side=8), Calibration(threshold=0.4))


@pytest.fixture(scope="module")
def folder(phantom, tmp_path_factory):
    """The coarse phantom as MetaImage with its truth, and small weights."""
    made = tmp_path_factory.mktemp("api")
    write_phantom(phantom, made)
    save_model(SMALL, made / "small.safetensors")
    return made


@pytest.fixture(scope="module")
def report(folder):
    return gcnn.detect(folder / "thorax.mhd", model=folder / "small.safetensors", device="cpu")


def same_nodules(a, b):
    return [(n.position_mm, n.probability) for n in a.nodules] == [(n.position_mm, n.probability) for n in b.nodules]


def test_a_path_an_image_and_an_array_give_the_same_nodules(folder, phantom, report):
    assert report.nodules
    detector = make_detector(SMALL, torch.device("cpu"))
    volume = phantom.volume
    assert np.allclose(volume.direction, np.eye(3)[:, ::-1])  # what an array's axes are taken for
    image = gcnn.detect(sitk.ReadImage(str(folder / "thorax.mhd")), detector)
    array = gcnn.detect(volume.hu, detector, spacing_zyx=volume.spacing_zyx, origin_mm=volume.to_world[:3, 3])
    for other in (image, array):
        assert same_nodules(other, report)
        assert other.scan.source.kind == "array"
        assert other.scan.source.sha256 == report.scan.source.sha256


def test_an_image_keeps_its_axes(phantom):
    """The axes of an image are those of its header, whatever the order of its voxels."""
    for matrix in (np.array([[0, 0, 1], [-1, 0, 0], [0, 1, 0]]), -np.eye(3, dtype=int)):
        other = turned(phantom.volume, matrix)
        made = as_volume(as_image(other))
        assert np.array_equal(made.hu, other.hu)
        assert np.allclose(made.to_world, other.to_world, atol=1e-9)


def test_it_is_plain_data_and_files(report, tmp_path):
    jsonschema.validate(report.to_dict(), report_schema())
    paths = report.save(tmp_path, ["json", "csv", "html"])
    assert {p.name for p in tmp_path.iterdir()} == {"thorax.nodules.json", "thorax.nodules.csv", "thorax.nodules.html"}
    assert json.loads(paths["json"].read_text()) == report.to_dict()
    with pytest.raises(gcnn.GcnnError, match="exists already"):
        report.save(tmp_path, "json,slicer")
    assert not (tmp_path / "thorax.nodules.mrk.json").exists()
    report.save(tmp_path, "json,slicer", overwrite=True)
    for wanted, message in (("sr", "this is an image file"), ("pdf", "unknown format")):
        with pytest.raises(gcnn.GcnnError, match=message):
            report.save(tmp_path / "other", wanted)


def test_an_array_is_saved_under_its_name(phantom, tmp_path):
    volume, detector = phantom.volume, make_detector(SMALL, torch.device("cpu"))
    made = gcnn.detect(volume.hu, detector, spacing_zyx=volume.spacing_zyx, name="patient/7", threshold=1.0)
    assert made.nodules == ()
    assert [p.name for p in made.save(tmp_path).values()] == ["patient_7.nodules.csv", "patient_7.nodules.json"]


def test_a_notebook_shows_a_table_and_a_picture_and_no_script(report):
    shown = report._repr_html_()
    assert shown.count("<tr>") == len(report.nodules) + 1
    assert f"<td>{report.nodules[0].diameter_mm:.1f}</td>" in shown
    (picture,) = re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    assert "<script" not in shown


def test_a_name_is_shown_as_text(phantom):
    volume, detector = phantom.volume, make_detector(SMALL, torch.device("cpu"))
    made = gcnn.detect(volume.hu, detector, spacing_zyx=volume.spacing_zyx, name="<b>x", threshold=1.0)
    assert "<b>x" not in made._repr_html_()


def test_reports_are_evaluated_like_their_files(folder, report, tmp_path):
    every = gcnn.detect(folder / "thorax.mhd", model=SMALL, threshold=0.0, device="cpu")
    run = gcnn.evaluate([every], folder / "annotations.csv")
    assert run.evaluation.counts.scans == 1
    assert run.evaluation.counts.nodules == 7
    path = every.save(tmp_path, "json")["json"]
    assert gcnn.evaluate(path, folder / "annotations.csv").evaluation.cpm == run.evaluation.cpm
    with pytest.raises(gcnn.GcnnError, match="no reports"):
        gcnn.evaluate([], folder / "annotations.csv")


def test_a_scan_without_nodules_is_evaluated_too(report, folder, phantom):
    """A table names scans with nodules only; reports name them all, and each counts in false positives per scan."""
    detector = make_detector(gcnn.load_model(str(folder / "small.safetensors")), torch.device("cpu"))
    empty = gcnn.detect(phantom.volume.hu, detector, spacing_zyx=phantom.volume.spacing_zyx, name="empty")
    counts = gcnn.evaluate([report, empty], folder / "annotations.csv").evaluation.counts
    assert (counts.scans, counts.scans_without_nodules) == (2, 1)


ARRAY = np.zeros((4, 4, 4), np.int16)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: gcnn.detect(ARRAY), "an array needs spacing_zyx"),
        (lambda f: gcnn.detect(ARRAY, spacing_zyx=(1, 1)), "spacing_zyx must be three numbers"),
        (lambda f: gcnn.detect(ARRAY, spacing_zyx=(1, 1, 1)), "does not look like a chest CT"),
        (lambda f: gcnn.detect(ARRAY[0], spacing_zyx=(1, 1, 1)), "at least two slices"),
        (lambda f: gcnn.detect(LUNG, spacing_zyx=(7, 1, 1)), "too coarse"),
        (lambda f: gcnn.detect(LUNG, spacing_zyx=(0, 1, 1)), "must be positive"),
        (lambda f: gcnn.detect(LUNG * np.nan, spacing_zyx=(1, 1, 1)), "NaN"),
        (lambda f: gcnn.detect(f / "thorax.mhd", spacing_zyx=(1, 1, 1)), "go with an array"),
        (lambda f: gcnn.detect(f / "thorax.mhd", name="a"), "name goes with"),
        (lambda f: gcnn.detect(LUNG, spacing_zyx=(1, 1, 1), series="#1"), "go with a path"),
        (lambda f: gcnn.detect(sitk.Image(4, 4, sitk.sitkInt16)), "got 2 dimensions"),
        (lambda f: gcnn.detect(f / "thorax.mhd", threshold=0.1, fp_per_scan=1), "exclude each other"),
        (lambda f: gcnn.detect(f / "thorax.mhd", threshold=2), "from 0 to 1"),
        (lambda f: gcnn.detect(f / "thorax.mhd", make_detector(SMALL, torch.device("cpu")), device="cpu"), "leave out"),
        (lambda f: gcnn.detect(None), "not NoneType"),
        (lambda f: gcnn.detect(f / "thorax.mhd", model="octagonal"), "no weights named"),
        (lambda f: gcnn.detect("nowhere.mhd"), "nowhere.mhd"),
    ],
)
def test_what_cannot_be_right_is_refused(folder, call, message):
    with pytest.raises(gcnn.GcnnError, match=message):
        call(folder)


LUNG = np.full((4, 4, 4), -800.0)
LUNG[0] = 40
