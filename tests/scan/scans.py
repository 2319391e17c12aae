"""Small scans, and the same as DICOM series that can be spoiled slice by slice."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

from gcnn_cli.scan.volume import Array, make_affine

Edit = Callable[[int, Dataset], None]

STUDY, SERIES, FRAME = "1.2.826.0.1.1", "1.2.826.0.1.2", "1.2.826.0.1.3"


def some_hu(shape: tuple[int, int, int] = (5, 6, 7), seed: int = 0) -> NDArray[np.int16]:
    """Different values in every voxel, from air to bone."""
    return np.random.default_rng(seed).permutation(np.prod(shape)).reshape(shape).astype(np.int16) * 5 - 1000


def axial(spacing: tuple[float, float, float] = (2.5, 0.8, 0.7)) -> Array:
    """to_world of an axial scan, axes along +z, +y, +x."""
    return make_affine(spacing, np.eye(3)[:, ::-1], (-10.0, 20.0, -300.0))


def oblique(spacing: tuple[float, float, float] = (2.5, 0.8, 0.7)) -> Array:
    """to_world of a scan turned about all three axes; no axis lies along the patient's."""
    affine = axial(spacing)
    turn = np.eye(3)
    for axes, angle in (((0, 1), 0.4), ((1, 2), -0.9), ((2, 0), 0.6)):
        step = np.eye(3)
        step[np.ix_(axes, axes)] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        turn = step @ turn
    affine[:3, :3] = turn @ affine[:3, :3]
    return affine


def nothing(number: int, dataset: Dataset) -> None:
    """An edit that leaves the slice as it is."""


def write_series(
    folder: Path,
    hu: NDArray[np.int16],
    to_world: Array,
    *,
    edit: Edit = nothing,
    name: Callable[[int], str] = "{:03d}.dcm".format,
    series: str = SERIES,
) -> Path:
    """One classic CT file per slice; `edit(number, dataset)` changes a slice before it is written."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(len(hu)):
        dataset = ct_slice(number, hu[number], to_world, series)
        edit(number, dataset)
        dataset.save_as(folder / name(number), enforce_file_format=True)
    return folder


def ct_slice(number: int, hu: NDArray[np.int16], to_world: Array, series: str = SERIES) -> FileDataset:
    """One slice as a CT image, stored unsigned with intercept -1024."""
    dataset = _dataset(CTImageStorage, f"{series}.{number + 1}", hu.shape, series)
    spacing = np.linalg.norm(to_world[:3, :3], axis=0)
    direction = to_world[:3, :3] / spacing
    dataset.InstanceNumber = number + 1
    dataset.ImagePositionPatient = [f"{v:.9g}" for v in (to_world @ [number, 0, 0, 1])[:3]]
    dataset.ImageOrientationPatient = [f"{v:.9g}" for v in (*direction[:, 2], *direction[:, 1])]
    dataset.PixelSpacing = [float(spacing[1]), float(spacing[2])]
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelData = (hu.astype(np.int32) + 1024).astype(np.uint16).tobytes()
    return dataset


def enhanced(hu: NDArray[np.int16], to_world: Array, order: list[int]) -> FileDataset:
    """The whole scan as one enhanced multi-frame CT, frames in the given order."""
    dataset = _dataset(EnhancedCTImageStorage, f"{SERIES}.1", hu.shape[1:], SERIES)
    spacing = np.linalg.norm(to_world[:3, :3], axis=0)
    direction = to_world[:3, :3] / spacing
    shared, measures, plane, rescale = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [float(spacing[1]), float(spacing[2])]
    plane.ImageOrientationPatient = [f"{v:.9g}" for v in (*direction[:, 2], *direction[:, 1])]
    rescale.RescaleSlope, rescale.RescaleIntercept = 1, -1024
    shared.PixelMeasuresSequence = [measures]
    shared.PlaneOrientationSequence = [plane]
    shared.PixelValueTransformationSequence = [rescale]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for number in order:
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = [f"{v:.9g}" for v in (to_world @ [number, 0, 0, 1])[:3]]
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.NumberOfFrames = len(order)
    dataset.PixelData = (hu[order].astype(np.int32) + 1024).astype(np.uint16).tobytes()
    return dataset


def _dataset(sop_class: str, uid: str, shape: tuple[int, ...], series: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.UID(sop_class)
    meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(uid)
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, uid
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = STUDY, series, FRAME
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "SECRET-7"
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SeriesNumber, dataset.SeriesDescription = 4, "chest 2.5 mm"
    dataset.Rows, dataset.Columns = shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    return dataset
