"""Identify the patients of cubes by their voxels, so that no patient is on both sides of a split.

The cubes' patients are unknown, and many cubes show a nodule of one of the stacks. The central slices of a cube are
compared with every slice of every stack and chunk by normalized cross-correlation, over shifts of a few voxels.
Unrelated nodules reach about 0.8; the same nodule reaches 0.95 and more.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from gcnn_cli.files import write_bytes
from gcnn_cli.labels.entries import CutoutEntry

SAME_NODULE = 0.95

_TEMPLATE = 21  # mm, in voxels of 1 mm
_SEARCH = 31


def identify_patients(entries: list[CutoutEntry], cache: Path | None = None) -> list[CutoutEntry]:
    """Fill in the patients that the voxels identify; the others stay empty.

    cache: folder that keeps the result for these files (name, size, time); default: the voxels are compared again
    """
    known = [entry for entry in entries if entry.patient]
    unknown = [entry for entry in entries if not entry.patient and entry.masked]  # cubes
    if not known or not unknown:
        return entries
    note = None if cache is None else cache / f"patients-{_signature([*known, *unknown])}.json"
    if note is not None and note.is_file():
        patients = json.loads(note.read_text("utf-8"))
    else:
        patients = _compare(known, unknown)
        if note is not None:
            write_bytes(note, json.dumps(patients).encode(), overwrite=True)
    return [entry if entry.patient else replace(entry, patient=patients.get(entry.name, "")) for entry in entries]


def _signature(entries: list[CutoutEntry]) -> str:
    stats = [(e.name, e.patient, (s := e.path.stat()).st_size, s.st_mtime_ns) for e in entries]
    return hashlib.sha256(json.dumps([SAME_NODULE, stats]).encode()).hexdigest()[:32]


def _compare(known: list[CutoutEntry], unknown: list[CutoutEntry]) -> dict[str, str]:
    """Return name of a cube -> its patient, for cubes that show one of the known nodules.

    Known cut-outs without spacing and center, such as cubes named for their patients, are not compared with.
    """
    slices, owners = [], []
    for entry in known:
        data = entry.read()
        if not data.keys() >= {"spacing_zyx", "centre_zyx"}:
            continue
        found = _search_windows(data["hu"], data["spacing_zyx"], data["centre_zyx"])
        slices += found
        owners += [entry.patient] * len(found)
    if not slices:
        return {}
    images = torch.from_numpy(np.stack(slices)).unsqueeze(1)
    spread = _local_spread(images)
    patients = {}
    for entry in unknown:
        data = entry.read()
        templates = _templates(data["hu"], data["mask"])
        match = (F.conv2d(images, templates) / spread).amax(dim=(1, 2, 3))
        best = int(match.argmax())
        if float(match[best]) >= SAME_NODULE:
            patients[entry.name] = owners[best]
    return patients


def _search_windows(
    hu: NDArray[np.int16], spacing: NDArray[np.float64], center: NDArray[np.float64]
) -> list[NDArray[np.float32]]:
    """Resample every slice of a stack around its nodule to 1 mm pixels."""
    steps = np.arange(_SEARCH) - _SEARCH // 2
    places = np.meshgrid(steps / spacing[1] + center[1], steps / spacing[2] + center[2], indexing="ij")
    clipped = np.clip(hu.astype(np.float32), -1000, 400)
    return [ndimage.map_coordinates(image, places, order=1, mode="nearest") for image in clipped]


def _templates(hu: NDArray[np.int16], mask: NDArray[np.bool_]) -> Tensor:
    """Return the three central slices of a (y, x, z) cube, each with mean 0 and sum of squares 1: [3, 1, T, T]."""
    half = _TEMPLATE // 2
    center = np.round(ndimage.center_of_mass(mask)).astype(int) + half
    padded = np.pad(np.clip(hu.astype(np.float32), -1000, 400), half, mode="edge")
    y, x = (slice(c - half, c + half + 1) for c in center[:2])
    planes = np.stack([padded[y, x, center[2] + offset] for offset in (-1, 0, 1)])
    planes -= planes.mean(axis=(1, 2), keepdims=True)
    planes /= np.sqrt((planes**2).sum(axis=(1, 2), keepdims=True))
    return torch.from_numpy(planes).unsqueeze(1)


def _local_spread(images: Tensor) -> Tensor:
    """Return the root of the sum of squared deviations in every window of the template's size."""
    ones = torch.ones(1, 1, _TEMPLATE, _TEMPLATE)
    total, squares = F.conv2d(images, ones), F.conv2d(images**2, ones)
    return (squares - total**2 / _TEMPLATE**2).clamp(min=1.0).sqrt()
