"""Volume -> files: MetaImage, and a classic CT series in DICOM. Existing files are kept unless --overwrite is given.

A volume also becomes the bytes of a NIfTI file, for viewers that read nothing else.
"""

import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.files import make_folder
from gcnn_cli.scan.resample import as_image
from gcnn_cli.scan.volume import Volume

_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write_metaimage(volume: Volume, path: Path, *, overwrite: bool = False) -> None:
    """Write a compressed .mhd with its .zraw, or a compressed .mha. Raises UsageError if a file exists."""
    data = path.with_suffix(".zraw")
    targets = [path, data] if path.suffix == ".mhd" else [path]
    for target in targets:
        if target.exists() and not overwrite:
            raise UsageError(f"{target} exists already; give --overwrite or another folder")
    make_folder(path.parent)
    temporary = path.with_name(f"{path.stem}.part{path.suffix}")
    sitk.WriteImage(as_image(volume), str(temporary), useCompression=True, compressionLevel=9)
    if path.suffix == ".mhd":
        temporary.with_suffix(".zraw").replace(data)
        header = temporary.read_text().replace(temporary.with_suffix(".zraw").name, data.name)
        temporary.write_text(header)
    temporary.replace(path)


def nifti_parts(volume: Volume, window: tuple[float, float]) -> tuple[bytes, memoryview]:
    """Return the header (352 bytes) and the voxels of a NIfTI-1 file: uncompressed, little-endian, frame RAS.

    The true affine is the sform, in float32: places are right to 0.1 µm within a meter of the origin. The qform is
    left out, since a rotation and voxel sizes cannot hold every affine.

    window: lowest and highest HU that a viewer shows at first
    """
    kind, bits, stored = (4, 16, "<i2") if volume.hu.dtype == np.int16 else (16, 32, "<f4")
    to_ras = _LPS_TO_RAS @ volume.to_world[:, [2, 1, 0, 3]]
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *volume.shape[::-1], 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, kind, bits)
    struct.pack_into("<8f", header, 76, 1.0, *volume.spacing_zyx[::-1], 1, 1, 1, 1)
    struct.pack_into("<3f", header, 108, 352.0, 1.0, 0.0)  # first voxel, slope, intercept
    header[123] = 2  # mm
    struct.pack_into("<2f", header, 124, window[1], window[0])
    struct.pack_into("<2h", header, 252, 0, 1)  # no qform; the sform is the scanner's frame
    struct.pack_into("<12f", header, 280, *to_ras[:3].ravel())
    header[344:348] = b"n+1\0"
    return bytes(header), np.ascontiguousarray(volume.hu, stored).data.cast("B")


def write_dicom_series(volume: Volume, folder: Path, *, description: str, overwrite: bool = False) -> None:
    """Write one deflated CT image per slice, int16 HU, into an empty or new folder.

    UIDs are derived from the content, under 2.25, so that the same scan gives the same files.
    Raises UsageError if the folder is not empty, InputError for HU that are not int16.
    """
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise UsageError(f"{folder} is not empty; give --overwrite or another folder")
    if volume.hu.dtype != np.int16:
        raise InputError("only int16 HU can be written as DICOM")
    make_folder(folder)
    seed = hashlib.sha256(np.ascontiguousarray(volume.hu).tobytes()).hexdigest()
    for number in range(volume.shape[0]):
        dataset = _slice_dataset(volume, number, seed, description)
        path = folder / f"{number + 1:04d}.dcm"
        temporary = path.with_suffix(".part")
        dataset.save_as(temporary, enforce_file_format=True)
        os.replace(temporary, path)


def _uid(seed: str, *parts: object) -> str:
    digest = hashlib.sha256(":".join([seed, *map(str, parts)]).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _slice_dataset(volume: Volume, number: int, seed: str, description: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.UID(_CT_IMAGE)
    meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(_uid(seed, "image", number))
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    rows, columns = volume.shape[1:]
    spacing = volume.spacing_zyx
    dataset.SOPClassUID = _CT_IMAGE
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = _uid(seed, "study")
    dataset.SeriesInstanceUID = _uid(seed, "series")
    dataset.FrameOfReferenceUID = _uid(seed, "frame")
    dataset.PatientName = dataset.PatientID = "Phantom"
    dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.StudyID = ""
    dataset.PositionReferenceIndicator = ""
    dataset.Manufacturer = "gcnn"
    dataset.Modality = "CT"
    dataset.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    dataset.SeriesDescription = description
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.AcquisitionNumber = 1, number + 1, 1
    dataset.ImagePositionPatient = [f"{v:.6g}" for v in volume.position_mm(np.array([number, 0, 0]))]
    dataset.ImageOrientationPatient = [f"{v:.9g}" for v in (*volume.direction[:, 2], *volume.direction[:, 1])]
    dataset.PixelSpacing = [f"{spacing[1]:.9g}", f"{spacing[2]:.9g}"]
    dataset.SliceThickness = f"{spacing[0]:.9g}"
    dataset.KVP = ""
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, 0, "HU"
    dataset.PixelData = np.ascontiguousarray(volume.hu[number]).tobytes()
    return dataset
