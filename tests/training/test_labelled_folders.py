"""`gcnn train` on folders laid out as LUNA16 and as TCIA delivers LIDC-IDRI, to weights that load."""

import json
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from labels.readers import ball, nodule, outlined, write_message
from training.recipes import QUICK_RECIPE
from typer.testing import CliRunner

from gcnn_cli.cli import app
from gcnn_cli.errors import InputError
from gcnn_cli.labels.index import read_index
from gcnn_cli.labels.patients import pseudonym
from gcnn_cli.network.weights import load_model
from gcnn_cli.samples.prepare import prepare
from gcnn_cli.samples.sample import SampleConfig
from gcnn_cli.samples.split import SplitConfig
from gcnn_cli.scan.volume import Volume
from gcnn_cli.scan.writing import write_dicom_series, write_metaimage

QUICK = SampleConfig(spacing_mm=3.0, side=24, candidates_per_scan=40, transplants_per_scan=0, shams_per_scan=0)
A, B = "1.3.6.1", "1.3.6.2"


@pytest.fixture
def train(tmp_path):
    """`gcnn train` with a coarse grid, few samples and a thin network; returns the result and the weights' path."""
    (tmp_path / "quick.toml").write_text(QUICK_RECIPE)
    out = tmp_path / "new.safetensors"

    def call(folder, *options):
        arguments = ["train", "--data", folder, "--out", out, "--config", tmp_path / "quick.toml", *options]
        return CliRunner().invoke(app, [str(a) for a in arguments]), out

    return call


def write_luna(folder, phantom, signs=(1, 1, 1)):
    """Two scans in two subsets; only the first has rows, whose positions are multiplied by the signs."""
    empty = Volume(np.minimum(phantom.volume.hu, np.int16(3000)), phantom.volume.to_world)
    for n, (name, volume) in enumerate(((A, phantom.volume), (B, empty))):
        write_metaimage(volume, folder / f"subset{n}" / f"{name}.mhd")
    rows = ["seriesuid,coordX,coordY,coordZ,diameter_mm"]
    rows += [",".join(map(str, (A, *np.multiply(signs, n.position_mm), n.diameter_mm))) for n in phantom.nodules]
    (folder / "annotations.csv").write_text("\n".join(rows))
    return folder


def write_tcia(folder, phantom, patients=("LIDC-IDRI-0001", "SECRET-7")):
    """PATIENT/STUDY/SERIES/*.dcm with the readers' XML beside the slices; all four mark every nodule."""
    for n, patient in enumerate(patients):
        home = folder / f"p{n}" / "study" / "series"
        write_dicom_series(Volume(phantom.volume.hu + np.int16(n), phantom.volume.to_world), home, description="chest")
        slices = [pydicom.dcmread(path) for path in sorted(home.glob("*.dcm"))]
        for number, dataset in enumerate(slices):
            dataset.PatientID = patient
            dataset.save_as(home / f"{number + 1:04d}.dcm")
        uids = [str(dataset.SOPInstanceUID) for dataset in slices]
        volume = phantom.volume
        balls = [ball(volume.shape, volume.to_world, k.position_mm, k.diameter_mm / 2) for k in phantom.nodules]
        marks = "".join(nodule(outlined(mask, uids.__getitem__)) for mask in balls)
        write_message(home / "069.xml", str(slices[0].SeriesInstanceUID), [marks] * 4)
    return folder


def test_luna16_becomes_weights(train, phantom, tmp_path, caplog):
    result, out = train(write_luna(tmp_path / "luna", phantom), "--hold-out-share", 0, "--strict", "--name-data")
    assert result.exit_code == 0, result.output
    assert "LUNA16 layout, 2 scans: 2 labeled, with 7 nodules" in caplog.text
    provenance = load_model(str(out)).provenance
    assert provenance["training_series"] == provenance["labelled_series"] == [A, B]
    assert provenance["samples"]["mark"] == len(phantom.nodules)


def test_tcia_becomes_weights_that_hold_no_patient_id(train, phantom, tmp_path, caplog):
    folder = write_tcia(tmp_path / "tcia", phantom)
    held_out = ["--hold-out-share", 0, "--hold-out", "SECRET-7", "--hold-out", "Nobody^1"]
    result, out = train(folder, *held_out, "--strict", "--name-data")
    assert result.exit_code == 0, result.output
    assert "LIDC-IDRI layout, 2 scans: 2 labeled, with 14 nodules, 0 excluded marks" in caplog.text
    assert "1 of the 2 patients to hold out are not in the data" in caplog.text
    provenance = load_model(str(out)).provenance
    assert provenance["training_patients"] == ["LIDC-IDRI-0001"]
    assert provenance["held_out_patients"] == provenance["recipe"]["split"]["hold_out"] == [pseudonym("SECRET-7")]
    for text in (caplog.text, result.output, json.dumps(provenance)):
        assert "SECRET" not in text
        assert "Nobody" not in text
    for scan in read_index([folder]).scans:
        truth = np.array([k.position_mm for k in phantom.nodules])
        apart = np.linalg.norm(np.array(scan.nodules)[:, None, :3] - truth, axis=2)
        assert apart.min(axis=1).max() < 1  # of a ball of whole voxels, 2.5 mm thick


@pytest.mark.data
def test_the_real_series_and_its_xml_become_weights(train, shared_data):
    result, out = train(shared_data / "dicom", "--hold-out-share", 0, "--strict", "--name-data")
    assert result.exit_code == 0, result.output
    assert load_model(str(out)).provenance["training_patients"] == ["LIDC-IDRI-0001"]


def damage(folder):
    """Voxels that only reading shows to be damaged: the header and the size on disk are as they should be."""
    data = folder / "subset1" / f"{B}.zraw"
    content = bytearray(data.read_bytes())
    content[1000:2000] = b"\0" * 1000
    data.write_bytes(content)
    return folder


def test_a_scan_that_reading_shows_to_be_damaged_is_left_out_or_refused(phantom, tmp_path, caplog):
    folder = damage(write_luna(tmp_path / "luna", phantom))
    assert [scan.name for scan in read_index([folder], strict=True).scans] == [A, B]
    split = SplitConfig(share=0.0)
    prepared = prepare([folder], QUICK, split)
    assert prepared.labelled_series == prepared.training_series == prepared.training_patients == (A,)
    assert f"{B}.zraw: its compressed voxels are damaged" in caplog.text
    with pytest.raises(InputError, match="--strict: 1 unreadable files; the first: .*zraw"):
        prepare([folder], QUICK, split, strict=True)


def test_labels_in_ras_are_noticed(phantom, tmp_path, caplog):
    """All of them lie in the scan, as the chest is centered."""
    split, cache = SplitConfig(share=0.0), tmp_path / "cache"
    to_world = phantom.volume.to_world.copy()
    middle = phantom.volume.position_mm(np.array([phantom.volume.shape]) / 2)[0] * (1, 1, 0)
    to_world[:3, 3] -= middle
    nodules = [replace(n, position_mm=tuple(np.subtract(n.position_mm, middle))) for n in phantom.nodules]
    centered = replace(phantom, volume=Volume(phantom.volume.hu, to_world), nodules=nodules)
    prepare([write_luna(tmp_path / "lps", centered)], QUICK, split, strict=True, cache=cache)
    assert "another frame" not in caplog.text
    folder = write_luna(tmp_path / "ras", centered, signs=(-1, -1, 1))
    prepare([folder], QUICK, split, cache=cache)
    (line,) = [record.message for record in caplog.records if record.message.startswith("labels in another frame")]
    assert str(folder / "annotations.csv") in line
    assert "would be with x and y negated, as from RAS to LPS: positions must be in LPS mm" in line
    with pytest.raises(InputError, match="--strict: 1 labels in another frame"):
        prepare([folder], QUICK, split, strict=True, cache=cache)


def test_strict_is_one_line_and_an_exit_code(train, phantom, tmp_path):
    folder = write_luna(tmp_path / "luna", phantom)
    with (folder / "annotations.csv").open("a") as file:
        file.write("\n1.2.3,0,0,0,5\n")
    result, out = train(folder, "--strict", "--quiet")
    assert result.exit_code == 3
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert lines == [f"error: --strict: 1 missing scans; the first: {folder / 'annotations.csv'}: no scan of 1.2.3"]
    assert not out.exists()
