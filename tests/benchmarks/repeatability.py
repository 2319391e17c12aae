"""How much the measured volume of one nodule varies from scan to scan: `followup.growth` takes its error from here.

    python tests/benchmarks/repeatability.py DATA/cubes [--repeats 6]

Each nodule cut-out in full context (cubes of 1 mm) is scanned again and again: turned by up to 10 degrees and shifted
by up to half a slice, averaged into slices of each thickness, with new noise, and searched for from a place up to
1 mm away and a size up to 20 % off. Prints, by diameter and slice thickness, the standard deviation of ln(volume)
within a nodule, as Markdown. The patient's own part (breath, posture) is not in it.
"""

import argparse
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from gcnn_cli.detection.findings import Candidate
from gcnn_cli.detection.measure import measure_nodule
from gcnn_cli.scan.resample import as_image, resample
from gcnn_cli.scan.volume import Volume, make_affine

BINS_MM = (0, 5, 6, 8, 10, 15, 40)
SLICES_MM = (1.0, 2.5)
NOISE_HU = 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cubes", type=Path)
    parser.add_argument("--repeats", type=int, default=6)
    arguments = parser.parse_args()
    spreads: dict[tuple[int, float], list[float]] = {}
    for number, path in enumerate(sorted(arguments.cubes.glob("*.npz"))):
        with np.load(path) as data:
            hu, mask = np.moveaxis(data["hu"], 2, 0), np.moveaxis(data["mask"], 2, 0)
        if not mask.any():
            continue
        diameter = float((6 * mask.sum() / np.pi) ** (1 / 3))
        row = int(np.searchsorted(BINS_MM, diameter, side="right")) - 1
        for slice_mm in SLICES_MM:
            rng = np.random.default_rng([number, round(10 * slice_mm)])
            volumes = [rescan(hu, mask, slice_mm, diameter, rng) for _ in range(arguments.repeats)]
            spreads.setdefault((row, slice_mm), []).append(float(np.var(np.log(volumes), ddof=1)))
    print("| diameter mm | " + " | ".join(f"slices of {s:g} mm: nodules, SD of ln V" for s in SLICES_MM) + " |")
    print("|---|" + "---|" * len(SLICES_MM))
    for row in range(len(BINS_MM) - 1):
        cells = [cell(spreads.get((row, slice_mm), [])) for slice_mm in SLICES_MM]
        print(f"| {BINS_MM[row]} to {BINS_MM[row + 1]} | {' | '.join(cells)} |")


def cell(variances: list[float]) -> str:
    if not variances:
        return "0"
    return f"{len(variances)}, {np.sqrt(np.mean(variances)):.3f} (median {np.sqrt(np.median(variances)):.3f})"


def rescan(hu: np.ndarray, mask: np.ndarray, slice_mm: float, diameter: float, rng: np.random.Generator) -> float:
    """Return the volume in mm^3 that one more scan of the nodule measures."""
    source = Volume(np.ascontiguousarray(hu, np.int16), make_affine(np.ones(3), np.eye(3)[:, ::-1], np.zeros(3)))
    center = source.position_mm(np.array(ndimage.center_of_mass(mask)))
    turn = sitk.Euler3DTransform(center.tolist(), *np.radians(rng.uniform(-10, 10, 3)).tolist())
    shift = rng.uniform(-0.5, 0.5, 3) * (0.7, 0.7, slice_mm)
    spacing = (0.7, 0.7, slice_mm)
    size = [int(44 / s) for s in spacing]
    origin = center + shift - (np.array(size) - 1) / 2 * spacing
    fine = 4  # samples along z whose mean is a slice
    image = as_image(source)
    parts = [
        sitk.GetArrayFromImage(
            sitk.Resample(
                image, size, turn, sitk.sitkLinear, (origin + np.array([0, 0, (n - 1.5) / fine * slice_mm])).tolist(),
                spacing, np.eye(3).ravel().tolist(), -850.0, sitk.sitkFloat32,
            )
        )
        for n in range(fine)
    ]  # fmt: skip
    scanned = np.mean(parts, axis=0) + rng.normal(0, NOISE_HU, parts[0].shape)
    grid = resample(
        Volume(np.round(scanned).astype(np.int16), make_affine(np.array(spacing[::-1]), np.eye(3)[:, ::-1], origin)),
        1.0,
    )
    air = ndimage.gaussian_filter(grid.hu, 1.0) < -400
    lungs = ndimage.binary_closing(np.pad(air, 10, mode="edge"), iterations=8)[10:-10, 10:-10, 10:-10]
    place = center + rng.uniform(-1, 1, 3)
    return measure_nodule(grid, lungs, Candidate(tuple(place), diameter * rng.uniform(0.8, 1.2), 1.0)).volume_mm3


if __name__ == "__main__":
    main()
