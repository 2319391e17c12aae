"""Measured volumes against the readers' outlines, by size: how large the error of `volume_mm3` and of masks is.

    python tests/benchmarks/volumes.py DATA [--stacks 150]

Measures every nodule of DATA/cubes, and some of DATA/nodules (stacks, which end at the nodule's first and last slice
and are continued by repeating them), from the middle of its outline. The reference is the outline's voxels. Prints the
median of measured over outlined volume and of its absolute error, by the outline's diameter, as Markdown. Outlines
have an error of their own: readers differ, and a voxel on the edge counts as a whole.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import ndimage

from gcnn_cli.detection.findings import Candidate
from gcnn_cli.detection.measure import measure_nodule
from gcnn_cli.scan.resample import resample
from gcnn_cli.scan.volume import Volume, make_affine

BINS_MM = (0, 6, 8, 10, 15, 20, 40)
MARGIN_MM = 12.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--stacks", type=int, default=150)
    arguments = parser.parse_args()
    for kind, folder, most in (("cubes", "cubes", None), ("stacks", "nodules", arguments.stacks)):
        rows = [row for path in sorted((arguments.data / folder).glob("*.npz"))[:most] if (row := compare(path))]
        diameter, ratio = np.array(rows).T
        print(f"\n| diameter of the outline mm | nodules ({kind}) | measured / outlined, median | error, median |")
        print("|---|---|---|---|")
        for low, high in pairwise(BINS_MM):
            inside = ratio[(diameter >= low) & (diameter < high)]
            if len(inside):
                error = float(np.median(np.abs(inside - 1)))
                print(f"| {low} to {high} | {len(inside)} | {np.median(inside):.2f} | {100 * error:.0f} % |")


def compare(path: Path) -> tuple[float, float] | None:
    """Return the outline's diameter in mm and the ratio of the volumes; None for an empty outline."""
    with np.load(path) as data:
        hu, mask = data["hu"], data["mask"]
        spacing = np.asarray(data["spacing_zyx"], float) if "spacing_zyx" in data else np.ones(3)
    if "spacing_zyx" not in np.load(path):  # a cube: (y, x, z)
        hu, mask = np.moveaxis(hu, 2, 0), np.moveaxis(mask, 2, 0)
    if not mask.any():
        return None
    outlined = float(mask.sum() * np.prod(spacing))
    diameter = (6 * outlined / np.pi) ** (1 / 3)
    center = np.array(ndimage.center_of_mass(mask))
    if hu.shape[0] * spacing[0] < 40:  # a stack: its outer slices go on
        more = round(MARGIN_MM / spacing[0])
        hu, center = np.pad(hu, ((more, more), (0, 0), (0, 0)), mode="edge"), center + np.array([more, 0, 0])
        keep = np.zeros(hu.shape[0], bool)
        keep[more:-more] = True
        hu = np.where(keep[:, None, None], hu, np.minimum(hu, -850))  # beyond a nodule's last slice there is lung
    volume = Volume(np.ascontiguousarray(hu, np.int16), make_affine(spacing, np.eye(3)[:, ::-1], np.zeros(3)))
    grid = resample(volume, 1.0)
    air = np.pad(ndimage.gaussian_filter(grid.hu, 1.0) < -400, 12, mode="edge")
    lungs = ndimage.binary_closing(air, iterations=10)[12:-12, 12:-12, 12:-12]
    place = tuple(volume.position_mm(center))
    return diameter, measure_nodule(grid, lungs, Candidate(place, diameter, 1.0)).volume_mm3 / outlined


if __name__ == "__main__":
    main()
