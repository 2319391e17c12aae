"""Reports as a label map: NIfTI on the scan's own lattice, with the number of the nodule in each of its voxels.

The transform is written as the sform and, since the lattice is orthogonal, as the qform too, both in scanner
coordinates. NIfTI's frame is RAS: x and y have the other sign than in LPS.
Source: nifti1.h, NIfTI Data Format Working Group.
"""

import gzip
import struct

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.detection.findings import Report
from gcnn_cli.detection.regions import nodule_labels
from gcnn_cli.scan.volume import Volume

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_HEADER_BYTES = 352  # 348, and four that announce no extension
_SCANNER = 1  # code of a transform into the scanner's coordinates
_MM = 2
_TYPES = {np.dtype(np.uint8): 2, np.dtype(np.uint16): 512}


def label_map(report: Report, volume: Volume) -> bytes:
    """Return the .nii.gz file: 0 outside, n in nodule n. report: with its lungs; volume: its scan.

    Voxels are uint8, or uint16 from 256 nodules on. Raises as `nodule_labels`.
    """
    labels: NDArray[np.generic] = nodule_labels(report, volume)
    if len(report.nodules) <= np.iinfo(np.uint8).max:
        labels = labels.astype(np.uint8)
    content = _header(labels, volume) + np.ascontiguousarray(labels, labels.dtype.newbyteorder("<")).tobytes()
    return gzip.compress(content, compresslevel=6, mtime=0)  # the same bytes every time


def _header(labels: NDArray[np.generic], volume: Volume) -> bytes:
    """Return the header of an array (z, y, x), whose file runs along x first."""
    affine = (_LPS_TO_RAS @ volume.to_world)[:, [2, 1, 0, 3]]  # columns i, j, k = x, y, z
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    quaternion, handed = _quaternion(affine[:3, :3] / spacing)
    header = bytearray(_HEADER_BYTES)
    size = labels.shape[::-1]
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *size, 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, _TYPES[labels.dtype], 8 * labels.dtype.itemsize)
    struct.pack_into("<8f", header, 76, handed, *spacing, 0, 0, 0, 0)
    struct.pack_into("<fff", header, 108, _HEADER_BYTES, 1, 0)  # where the voxels begin, slope, intercept
    struct.pack_into("<B", header, 123, _MM)
    struct.pack_into("<80s", header, 148, b"gcnn nodules, research use only")
    struct.pack_into("<hh", header, 252, _SCANNER, _SCANNER)
    struct.pack_into("<6f", header, 256, *quaternion[1:], *affine[:3, 3])
    struct.pack_into("<12f", header, 280, *affine[:3].ravel())
    struct.pack_into("<4s", header, 344, b"n+1\0")
    return bytes(header)


def _quaternion(rotation: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Return the unit quaternion (a, b, c, d), a >= 0, of a rotation, and qfac: -1 if its third axis is reversed."""
    handed = 1.0 if np.linalg.det(rotation) > 0 else -1.0
    r = rotation * np.array([1, 1, handed])
    # The quaternion is the eigenvector of the largest eigenvalue of a symmetric matrix (Bar-Itzhack 2000).
    k = np.array(
        [
            [r[0, 0] + r[1, 1] + r[2, 2], r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]],
            [r[2, 1] - r[1, 2], r[0, 0] - r[1, 1] - r[2, 2], r[0, 1] + r[1, 0], r[0, 2] + r[2, 0]],
            [r[0, 2] - r[2, 0], r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], r[1, 2] + r[2, 1]],
            [r[1, 0] - r[0, 1], r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1]],
        ]
    )
    quaternion = np.linalg.eigh(k)[1][:, -1]
    return quaternion * (1 if quaternion[0] >= 0 else -1), handed
