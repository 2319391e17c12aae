"""No name, id or birth date of the patient in any output, log or error, however damaged the headers are.

The one exception are the DICOM SR and SEG, which must name the patient of their study; they name nothing beyond.
"""

import ast
import base64
import io
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from conftest import make_network
from PIL import Image
from pydicom.dataset import Dataset
from scan.scans import axial, some_hu, write_series
from typer.testing import CliRunner

from gcnn_cli.cli import app
from gcnn_cli.errors import GcnnError
from gcnn_cli.followup.files import follow_csv, follow_json
from gcnn_cli.followup.matching import Pair, Status
from gcnn_cli.followup.page import follow_page
from gcnn_cli.followup.registration import Alignment
from gcnn_cli.followup.run import Exam, FollowUp
from gcnn_cli.network.contract import Calibration, InputSpec
from gcnn_cli.network.weights import TrainedModel, save_model
from gcnn_cli.output.formats import FORMATS
from gcnn_cli.output.seg import segmentation
from gcnn_cli.output.sr import structured_report
from gcnn_cli.scan.dicom.dates import read_visit
from gcnn_cli.scan.info import describe_scan
from gcnn_cli.scan.reading import read_volume

PACKAGE = Path(__file__).resolve().parents[1] / "gcnn_cli"
# What an SR takes over, and what it must not.
REQUIRED = {"PatientName": "Zzname^Zzgiven", "PatientID": "ZZID-4711", "PatientBirthDate": "19570313"}
OPTIONAL = {
    "PatientSize": "1.7713", "PatientAddress": "Zzstreet", "OtherPatientIDs": "ZZOTHER", "OtherPatientNames": "Zzalias",
    "PatientComments": "Zzcomment", "PatientBirthTime": "031337", "PatientMotherBirthName": "Zzmother",
    "PatientTelephoneNumbers": "Zzphone", "EthnicGroup": "Zzgroup", "InstitutionName": "Zzhospital",
    "OperatorsName": "Zzoperator", "PerformingPhysicianName": "Zzdoctor",
}  # fmt: skip
MARKS = tuple(part for value in (REQUIRED | OPTIONAL).values() for part in value.split("^"))


def mark(number: int, dataset: Dataset) -> None:
    dataset.update(REQUIRED | OPTIONAL)


def found_in(content: bytes | str) -> set[str]:
    """The marks that a file or a text holds, in any case."""
    text = content if isinstance(content, str) else content.decode("latin-1")
    return {name for name in MARKS if name.lower() in text.lower()}


def unpacked(path: Path) -> bytes:
    """A file's bytes, and those of the pictures and texts that are packed into it."""
    content = path.read_bytes()
    if path.suffix == ".html":
        pictures = [base64.b64decode(uri) for uri in re.findall(rb"base64,([A-Za-z0-9+/=]+)", content)]
        return b"\n".join([content, *pictures, *map(_png_texts, pictures)])
    return content + _png_texts(content) if path.suffix == ".png" else content


def _png_texts(content: bytes) -> bytes:
    """What a PNG says besides its pixels; compressed texts are unpacked."""
    picture = Image.open(io.BytesIO(content))
    picture.load()
    return repr(picture.info).encode()


@pytest.fixture(scope="module")
def marked(phantom, tmp_path_factory):
    """The coarse phantom as a DICOM series with marked headers, and weights that report many places."""
    folder = tmp_path_factory.mktemp("marked")
    write_series(folder / "series", phantom.volume.hu, phantom.volume.to_world, edit=mark)
    model = TrainedModel("small", make_network("O"), InputSpec(spacing_mm=2.0, side=8), Calibration(threshold=0.0))
    save_model(model, folder / "small.safetensors")
    return folder


@pytest.fixture
def run(marked, tmp_path, monkeypatch):
    """Run a command on the marked series; what it printed, and the files that it wrote."""
    monkeypatch.chdir(tmp_path)

    def call(command, *arguments, code=0):
        done = CliRunner().invoke(app, [command, *map(str, arguments)])
        assert done.exit_code == code, done.output + repr(done.exception)
        return done.stdout + done.stderr

    return call


def test_the_check_can_fail(marked):
    assert found_in((marked / "series" / "003.dcm").read_bytes()) == set(MARKS)


def test_no_format_and_no_log_tells_who_the_patient_is(run, marked, tmp_path, caplog):
    printed = run(
        *("detect", marked / "series", "--model", marked / "small.safetensors"),
        *("--threshold", "0.4", "--format", ",".join(FORMATS), "-v"),
    )
    assert "series: scoring" in caplog.text
    assert not found_in(printed + caplog.text)
    written = sorted(tmp_path.iterdir())
    assert len(written) == len(FORMATS)
    for path in written:
        if path.name.endswith((".sr.dcm", ".seg.dcm")):
            assert found_in(path.read_bytes()) == {part for value in REQUIRED.values() for part in value.split("^")}
        else:
            assert not found_in(unpacked(path)), path.name
    (result,) = tmp_path.glob("*.nodules.json")
    assert len(json.loads(result.read_text())["nodules"]) > 3
    again = run("convert", result, "--format", "html,slicer", "--scan", marked / "series", "--out", "again")
    assert not found_in(again + "".join(p.read_text("utf-8") for p in (tmp_path / "again").iterdir()))


def test_info_and_refusals_do_not_tell_either(run, marked, tmp_path):
    for arguments in ((), ("--json",), ("--allow-gaps",)):
        assert not found_in(run("info", marked / "series", *arguments))
    write_series(tmp_path / "gap", some_hu((9, 6, 7)), axial(), edit=mark)
    (tmp_path / "gap" / "004.dcm").unlink()
    write_series(tmp_path / "two", some_hu(), axial(), edit=mark)
    write_series(tmp_path / "two", some_hu(), axial(), edit=mark, series="1.2.3", name="b{}.dcm".format)
    for name, code in (("gap", 5), ("two", 4)):
        assert not found_in(run("detect", name, "-v", code=code))
        assert not found_in(run("info", name))


def test_the_sr_holds_what_the_standard_requires_of_the_patient_and_no_more(tmp_path):
    volume = read_volume(write_series(tmp_path, some_hu(), axial(), edit=mark))
    from output.reports import report_of

    made = pydicom.dcmread(io.BytesIO(structured_report(report_of(volume, []), volume)))
    of_the_patient = {e.keyword: str(e.value) for e in made if e.tag.group == 0x0010}
    assert of_the_patient == {**REQUIRED, "PatientSex": ""}


def test_an_sr_of_a_series_without_a_name_has_none(tmp_path):
    def forget(number: int, dataset: Dataset) -> None:
        dataset.PatientName = dataset.PatientID = ""
        dataset.PatientIdentityRemoved, dataset.DeidentificationMethod = "YES", "by hand"

    volume = read_volume(write_series(tmp_path, some_hu(), axial(), edit=forget))
    from output.reports import report_of

    made = pydicom.dcmread(io.BytesIO(structured_report(report_of(volume, []), volume)))
    assert (str(made.PatientName), made.PatientID, made.PatientIdentityRemoved) == ("", "", "YES")


def test_only_objects_of_the_study_see_headers():
    """Every other output is made of a Report and a Volume, which hold none: whoever reads headers is listed here."""
    sources = (*(f"gcnn_cli.scan.dicom.{name}" for name in ("evidence", "headers", "dataset")), "pydicom")
    readers = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (isinstance(node, ast.ImportFrom) and (node.module or "").startswith(sources))
        or (isinstance(node, ast.Import) and any(alias.name.startswith("pydicom") for alias in node.names))
    }
    in_dicom = {"acquisitions", "dataset", "dates", "decoding", "evidence", "headers", "pixels", "series"}
    of_the_study = {f"output/{name}.py" for name in ("seg", "sr", "study")}
    assert readers == {*of_the_study, "scan/writing.py", *(f"scan/dicom/{name}.py" for name in in_dicom)}


# Damage: lengths that let one element run on into the next, and values that do not fit their type.


def said_of(folder: Path, caplog: pytest.LogCaptureFixture) -> str:
    """Everything that reading a folder says: rows of info, warnings, errors, identities, the log."""
    texts = []
    caplog.clear()
    for look in (describe_scan, lambda path: read_volume(path, allow_gaps=True).source, _sr_error, _seg_error):
        try:
            texts.append(repr(look(folder)))
        except GcnnError as error:
            texts.append(str(error))
    return "\n".join([*texts, caplog.text])


def _sr_error(folder: Path) -> str:
    """Only what making an SR says when it fails."""
    from output.reports import report_of

    volume = read_volume(folder, allow_gaps=True)
    structured_report(report_of(volume, []), volume)
    return ""


def _seg_error(folder: Path) -> str:
    """Only what making a SEG says when it fails."""
    from output.reports import report_of

    volume = read_volume(folder, allow_gaps=True)
    segmentation(report_of(volume, []), volume)
    return ""


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path / "series", some_hu(), axial(), edit=mark)


@pytest.mark.parametrize("number", [0, 3])
def test_an_element_that_runs_on_tells_nothing(series, number, caplog):
    """Every byte of the header's lengths and types in turn, made larger: what follows becomes part of the value."""
    path = series / f"{number:03d}.dcm"
    whole = path.read_bytes()
    ends = whole.index(b"\xe0\x7f\x10\x00")
    rng = np.random.default_rng(number)
    for at in rng.choice(np.arange(132, ends), 60, replace=False):
        damaged = bytearray(whole)
        damaged[at] = (damaged[at] + int(rng.choice([1, 16, 64, 255]))) % 256
        path.write_bytes(damaged)
        assert not found_in(said_of(series, caplog)), f"byte {at}"


@pytest.mark.parametrize(
    "keyword",
    ["Modality", "SeriesDescription", "SOPInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "SeriesInstanceUID"],
)
def test_what_is_shown_of_a_header_ends_where_its_element_ends(series, keyword, caplog):
    """The element's value with the patient's name behind it, as a wrong length makes it."""
    for path in series.iterdir():
        dataset = pydicom.dcmread(path)
        swallowed = str(dataset[keyword].value) + "\x10\x00\x10\x00PN\x0e\x00Zzname^Zzgiven"
        with pydicom.config.disable_value_validation():
            dataset[keyword]._value = swallowed
            dataset.save_as(path)
    assert not found_in(said_of(series, caplog))


def test_a_header_that_pydicom_cannot_decode_is_one_line(series, caplog):
    """Types that are none, and numbers of half their bytes, in what is read first and in what only an SR needs."""
    path = series / "000.dcm"  # whose patient an SR takes over
    whole = path.read_bytes()
    for vr in (b"\x08\x00\x60\x00CS", b"\x10\x00\x10\x00PN", b"\x28\x00\x10\x00US", b"\x02\x00\x00\x00UL"):
        at = whole.index(vr)
        for damage in (vr[:4] + b"Q" + vr[5:], vr + bytes([whole[at + 6] - 1])):
            path.write_bytes(whole[:at] + damage + whole[at + len(damage) :])
            assert not found_in(said_of(series, caplog))


VALUES = {
    "slope": ("RescaleSlope", "DS"),
    "padding": ("PixelPaddingValue", "IS"),
    "birth date": ("PatientBirthDate", "DA"),
    "number": ("SeriesNumber", "IS"),
    "study date": ("StudyDate", "DA"),
    "frames": ("NumberOfFrames", "IS"),
    "position": ("ImagePositionPatient", "DS"),
}


@pytest.mark.parametrize("case", VALUES)
def test_a_value_that_does_not_fit_its_type_is_not_quoted(series, case, caplog):
    keyword, vr = VALUES[case]
    for path in series.iterdir():
        dataset = pydicom.dcmread(path)
        if keyword in dataset:
            del dataset[keyword]
        tag = pydicom.datadict.tag_for_keyword(keyword)
        dataset[tag] = pydicom.dataelem.RawDataElement(
            pydicom.tag.Tag(tag), vr, 10, b"Zzgiven 57", 0, False, True
        )  # fmt: skip
        dataset.save_as(path)
    assert not found_in(said_of(series, caplog))


def test_packed_texts_are_looked_into(tmp_path):
    """The check of pictures sees a compressed text chunk."""
    text = b"Comment\0\0" + zlib.compress(b"Zzname")
    chunk = b"zTXt" + text
    buffer = io.BytesIO()
    Image.new("L", (2, 2)).save(buffer, "PNG")
    content = buffer.getvalue()
    at = content.index(b"IDAT") - 4
    chunk = len(text).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(content[:at] + chunk + content[at:])
    assert found_in(unpacked(tmp_path / "a.png")) == {"Zzname"}


def test_a_follow_up_tells_neither_who_nor_when(tmp_path):
    def dated(number: int, dataset: Dataset) -> None:
        mark(number, dataset)
        dataset.AcquisitionDate = "19991231"

    volume = read_volume(write_series(tmp_path / "series", some_hu(), axial(), edit=dated))
    from output.reports import report_of

    report = report_of(volume, volume.position_mm(np.array([[1, 2, 3]])))
    exam = Exam(volume, report)
    pair = Pair(Status.GONE, report.nodules[0], None, place_mm=report.nodules[0].position_mm)
    made = FollowUp(exam, exam, Alignment(np.eye(4), 1.0), (pair,), 90.0)
    assert read_visit(volume.source).acquired is not None  # the headers are there to be told
    for text in (follow_csv(made), follow_json(made), follow_page(made).decode()):
        assert not found_in(text)
        assert "1999" not in text
