"""A sound input of every kind that `gcnn` reads, small, as files in memory: what the mutators start from."""

import json
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from conftest import make_network
from output.reports import report_of
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from scan.dicom.test_pixels import jpeg_lossless
from scan.scans import axial, enhanced, some_hu, write_series

from gcnn_cli.network.contract import Calibration, InputSpec
from gcnn_cli.network.weights import TrainedModel, save_model
from gcnn_cli.output.json_format import report_json
from gcnn_cli.scan.resample import as_image
from gcnn_cli.scan.volume import Source, Volume
from gcnn_cli.training.recipe import read_recipe, recipe_text

Files = dict[str, bytes]

_SHAPE = (4, 32, 32)  # JPEG 2000 wants 32 pixels
_COLUMNS = "seriesuid,coordX,coordY,coordZ"


@cache
def sound_input(kind: str) -> tuple[str, Files]:
    """What to give to a reader, '' for the folder itself, and every file by its path inside the folder."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        name = MAKERS[kind](folder)
        files = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    return name, files


def _image(name: str, *, packed: bool = False) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        volume = Volume(some_hu(_SHAPE), axial(), Source("", "array", "array"))
        sitk.WriteImage(as_image(volume), str(folder / name), useCompression=packed)
        return name

    return make


def _dicom(syntax: str = "") -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        def edit(number: int, dataset) -> None:
            if syntax in (RLELossless, JPEG2000Lossless):
                dataset.compress(syntax)
            elif syntax == "JPEG lossless":
                with tempfile.TemporaryDirectory() as aside:
                    jpeg_lossless(dataset, Path(aside))
            elif syntax:
                dataset.file_meta.TransferSyntaxUID = syntax

        write_series(folder, some_hu(_SHAPE), axial(), edit=edit)
        return ""

    return make


def _enhanced(folder: Path) -> str:
    enhanced(some_hu(_SHAPE), axial(), [0, 1, 2, 3]).save_as(folder / "all.dcm", enforce_file_format=True)
    return ""


def _zip(folder: Path) -> str:
    with tempfile.TemporaryDirectory() as aside:
        series = write_series(Path(aside), some_hu(_SHAPE), axial())
        with zipfile.ZipFile(folder / "scan.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(series.iterdir()):
                archive.write(file, f"series/{file.name}")
    return "scan.zip"


def _pair(folder: Path) -> str:
    _image("s.nii")(folder)
    content = bytearray((folder / "s.nii").read_bytes())
    (folder / "s.nii").unlink()
    (start,) = struct.unpack_from("<f", content, 108)
    content[344:348], content[108:112] = b"ni1\0", bytes(4)
    (folder / "s.hdr").write_bytes(content[:352])
    (folder / "s.img").write_bytes(content[int(start) :])
    return "s.hdr"


def _spread(element: str, listed: bool) -> Callable[[Path], str]:
    """A MetaImage with a file for each slice."""

    def make(folder: Path) -> str:
        _image("s.mhd")(folder)
        names = [f"s{n}.raw" for n in range(_SHAPE[0])]
        for name, plane in zip(names, some_hu(_SHAPE), strict=True):
            (folder / name).write_bytes(plane.astype("<i2").tobytes())
        header = (folder / "s.mhd").read_text().replace("s.raw", element)
        (folder / "s.mhd").write_text(header + ("\n".join(names) + "\n" if listed else ""))
        (folder / "s.raw").unlink()
        return "s.mhd"

    return make


def _archive(name: str, make: Callable[[Path], str]) -> Callable[[Path], str]:
    """Another input, packed as a zip or tar."""

    def packed(folder: Path) -> str:
        with tempfile.TemporaryDirectory() as aside:
            make(Path(aside))
            files = sorted(Path(aside).iterdir())
            if name.endswith(".zip"):
                with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
                    for file in files:
                        archive.write(file, f"scan/{file.name}")
            else:
                with tarfile.open(folder / name, "w:gz" if name.endswith("gz") else "w") as tar:
                    for file in files:
                        tar.add(file, f"scan/{file.name}")
        return name

    return packed


def _weights(folder: Path) -> str:
    network = make_network("C4")
    calibration = Calibration(1.5, -0.25, 0.3, ((1.0, 0.4), (4.0, 0.2)))
    save_model(TrainedModel("small", network, InputSpec(side=8), calibration, {"seed": 0}), folder / "w.safetensors")
    return "w.safetensors"


def _report(folder: Path) -> str:
    volume = Volume(some_hu(_SHAPE), axial(), Source("scan.mha", "metaimage", "scan", sha256="a" * 64))
    report = report_of(volume, volume.position_mm(np.array([[1.0, 2, 3], [2.4, 8, 9]])), warnings=("a warning",))
    (folder / "scan.nodules.json").write_text(report_json(report, indent=2))
    return "scan.nodules.json"


def _jsonl(folder: Path) -> str:
    _report(folder)
    first = json.loads((folder / "scan.nodules.json").read_text())
    (folder / "scan.nodules.json").unlink()
    second = json.loads(json.dumps(first))
    second["input"]["seriesuid"] = "other"
    (folder / "all.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
    return "all.jsonl"


def _table(name: str, last: str, values: tuple[str, ...]) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        rows = [f"scan{n},{-10.5 + n},{20.25 - n},{-300 + 2.5 * n},{value}" for n, value in enumerate(values)]
        (folder / name).write_text("\n".join([f"{_COLUMNS},{last}", *rows]) + "\n")
        return name

    return make


def _labels(folder: Path) -> str:
    for name, last, values in (
        ("annotations.csv", "diameter_mm", ("5.5", "12.25")),
        ("annotations_excluded.csv", "diameter_mm", ("-1", "3")),
        ("candidates_V2.csv", "class", ("0", "1", "0")),
    ):
        _table(name, last, values)(folder)
    (folder / "seriesuids.csv").write_text("scan0\nscan1\nscan2\n")
    (folder / "scans.csv").write_text("seriesuid,patient\nscan0,p0\nscan1,p1\n")
    return ""


def _recipe(folder: Path) -> str:
    (folder / "recipe.toml").write_text(recipe_text(read_recipe(None)))
    return "recipe.toml"


MAKERS: dict[str, Callable[[Path], str]] = {
    "dicom": _dicom(),
    "dicom implicit": _dicom(ImplicitVRLittleEndian),
    "dicom deflated": _dicom(DeflatedExplicitVRLittleEndian),
    "dicom RLE": _dicom(RLELossless),
    "dicom JPEG 2000": _dicom(JPEG2000Lossless),
    "dicom JPEG": _dicom("JPEG lossless"),
    "dicom enhanced": _enhanced,
    "zip": _zip,
    "zip of mhd": _archive("scan.zip", _image("s.mhd", packed=True)),
    "zip of nii.gz": _archive("scan.zip", _image("s.nii.gz")),
    "tar": _archive("scan.tar", _dicom()),
    "tar.gz": _archive("scan.tar.gz", _dicom()),
    "tar of nrrd": _archive("scan.tar", _image("s.nrrd")),
    "mhd list": _spread("LIST", listed=True),
    "mhd pattern": _spread("s%d.raw 0 3 1", listed=False),
    "nifti pair": _pair,
    "mhd raw": _image("s.mhd"),
    "mhd zraw": _image("s.mhd", packed=True),
    "mha": _image("s.mha"),
    "mha packed": _image("s.mha", packed=True),
    "nii": _image("s.nii"),
    "nii.gz": _image("s.nii.gz"),
    "nrrd": _image("s.nrrd"),
    "nrrd packed": _image("s.nrrd", packed=True),
    "nhdr": _image("s.nhdr"),
    "weights": _weights,
    "report": _report,
    "reports": _jsonl,
    "annotations": _table("annotations.csv", "diameter_mm", ("5.5", "12.25", "-1")),
    "predictions": _table("predictions.csv", "probability", ("0.5", "0.99", "0.01")),
    "labels": _labels,
    "recipe": _recipe,
}
