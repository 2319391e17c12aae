"""How results change when the same scan is sampled, filtered, disturbed or turned in another way.

    python tests/benchmarks/robustness.py SCAN [SCAN ...] [--out FILE.jsonl]

For each scan and each change, the findings of the unchanged scan are looked for among those of the changed one:
within the larger of 5 mm and the finding's radius, at any probability. A line is printed for each pair and the table
of docs/robustness.md at the end; with --out, finished pairs are kept and not computed again.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from gcnn_cli.detection.detector import Detector, make_detector
from gcnn_cli.detection.findings import Nodule
from gcnn_cli.detection.pipeline import detect
from gcnn_cli.network.devices import choose_device
from gcnn_cli.network.weight_files import DEFAULT_MODEL
from gcnn_cli.network.weights import load_model
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.resample import as_image, orient
from gcnn_cli.scan.volume import Array, Volume

NEAR_MM = 5.0


def sampled(volume: Volume, slice_mm: float) -> Volume:
    """Average over slices of the new thickness, then take slices at the new spacing."""
    spacing = volume.spacing_zyx
    hu = np.asarray(volume.hu, np.float32)
    if slice_mm > spacing[0]:
        hu = ndimage.gaussian_filter1d(hu, np.sqrt(slice_mm**2 - spacing[0] ** 2) / 2.355 / spacing[0], axis=0)
    places = np.arange(0, (len(hu) - 1) * spacing[0] + 1e-6, slice_mm) / spacing[0]
    hu = ndimage.map_coordinates(hu, _grid(places, *hu.shape[1:]), order=1)
    return Volume(_stored(hu), volume.to_world @ np.diag([slice_mm / spacing[0], 1, 1, 1]))


def noisy(volume: Volume, sigma_hu: float) -> Volume:
    noise = sigma_hu * np.random.default_rng(0).standard_normal(volume.shape).astype(np.float32)
    return Volume(_stored(volume.hu + noise), volume.to_world)


def kernel(volume: Volume, sharper: float) -> Volume:
    """Blur by 0.8 mm in the slice for -1; add as much of what a blur removes for 1."""
    sigma = (0, *(0.8 / volume.spacing_zyx[1:]))
    hu = np.asarray(volume.hu, np.float32)
    soft = ndimage.gaussian_filter(hu, sigma)
    return Volume(_stored(soft if sharper < 0 else hu + sharper * (hu - soft)), volume.to_world)


def shifted(volume: Volume, voxels: float) -> Volume:
    """Sample between the voxels, at places moved along all axes."""
    hu = ndimage.shift(np.asarray(volume.hu, np.float32), -voxels, order=1, mode="nearest")
    to_world = volume.to_world.copy()
    to_world[:3, 3] = volume.position_mm(np.full(3, voxels))
    return Volume(_stored(hu), to_world)


def tilt_of(volume: Volume, degrees: float) -> sitk.Euler3DTransform:
    """Return the turn of the patient about the left-right axis through the middle of the scan."""
    middle = volume.position_mm((np.array(volume.shape) - 1) / 2)
    return sitk.Euler3DTransform([float(v) for v in middle], np.radians(degrees), 0.0, 0.0)


def tilted(volume: Volume, degrees: float) -> Volume:
    """Turn the patient in the scanner; what comes in from outside is air."""
    image = sitk.Cast(as_image(volume), sitk.sitkFloat32)
    turned = sitk.Resample(image, image, tilt_of(volume, degrees), sitk.sitkLinear, -1000.0)
    return Volume(_stored(sitk.GetArrayFromImage(turned)), volume.to_world)


def _grid(z: Array, height: int, width: int) -> list[Array]:
    return list(np.meshgrid(z, np.arange(height), np.arange(width), indexing="ij"))


def _stored(hu: Array) -> Array:
    return np.clip(np.round(hu), -1024, 3071).astype(np.int16)


CHANGES: dict[str, Callable[[Volume], Volume]] = {
    "none": lambda v: v,
    "slices of 1.25 mm": lambda v: sampled(v, 1.25),
    "slices of 2.5 mm": lambda v: sampled(v, 2.5),
    "slices of 5 mm": lambda v: sampled(v, 5.0),
    "noise of 20 HU": lambda v: noisy(v, 20.0),
    "noise of 50 HU": lambda v: noisy(v, 50.0),
    "soft kernel": lambda v: kernel(v, -1.0),
    "sharp kernel": lambda v: kernel(v, 1.0),
    "half a voxel's shift": lambda v: shifted(v, 0.5),
    "tilt of 5°": lambda v: tilted(v, 5.0),
    "tilt of 10°": lambda v: tilted(v, 10.0),
    "tilt of 20°": lambda v: tilted(v, 20.0),
}


def found_in(volume: Volume, detector: Detector, change: str) -> list[dict[str, float | list[float]]]:
    """Detect in the changed scan. Positions are in the frame of the unchanged patient."""
    report = detect(CHANGES[change](volume), detector, threshold=0.0)
    back = (lambda p: p) if "tilt" not in change else tilt_of(volume, float(change.split()[-1][:-1])).TransformPoint
    return [_row(nodule, back) for nodule in report.nodules]


def _row(nodule: Nodule, back: Callable[[tuple[float, ...]], tuple[float, ...]]) -> dict[str, float | list[float]]:
    position = [float(v) for v in back(nodule.position_mm)]
    return {"position_mm": position, "probability": nodule.probability, "diameter_mm": nodule.diameter_mm}


def compared(plain: list[dict], other: list[dict], threshold: float) -> dict[str, list[float] | int]:
    """Compare the findings above the threshold. new: findings of the other scan alone."""
    wanted = [n for n in plain if n["probability"] >= threshold]
    places = np.array([n["position_mm"] for n in other]).reshape(-1, 3)
    rows = {"moved_mm": [], "probability": [], "diameter": [], "kept": 0, "lost": 0}
    used = set()
    for nodule in wanted:
        away = np.linalg.norm(places - nodule["position_mm"], axis=1)
        near = [n for n in np.flatnonzero(away < max(NEAR_MM, nodule["diameter_mm"] / 2)) if n not in used]
        if not near:
            rows["lost"] += 1
            continue
        match = max(near, key=lambda n: other[n]["probability"])
        used.add(match)
        rows["kept"] += other[match]["probability"] >= threshold
        rows["moved_mm"].append(float(away[match]))
        rows["probability"].append(other[match]["probability"] - nodule["probability"])
        rows["diameter"].append(other[match]["diameter_mm"] / nodule["diameter_mm"] - 1)
    rows["wanted"] = len(wanted)
    rows["new"] = sum(n["probability"] >= threshold for k, n in enumerate(other) if k not in used)
    return rows


def table(results: dict[tuple[str, str], list[dict]], threshold: float) -> str:
    """Return the table over all scans whose changes are all done."""
    lines = [
        "| change | findings kept | new findings | moved, median (90 %) mm | probability, median change (90 % within) |"
        " diameter, median change (90 % within) |",
        "|---|---|---|---|---|---|",
    ]
    scans = sorted({scan for scan, _ in results})
    for change in list(CHANGES)[1:]:
        pairs = [
            compared(results[s, "none"], results[s, change], threshold)
            for s in scans
            if {(s, "none"), (s, change)} <= results.keys()
        ]
        if not pairs:
            continue
        moved, probability, diameter = (
            np.array([v for pair in pairs for v in pair[name]]) for name in ("moved_mm", "probability", "diameter")
        )
        kept, wanted, new = (sum(pair[name] for pair in pairs) for name in ("kept", "wanted", "new"))
        lines.append(
            f"| {change} | {kept} of {wanted} | {new} | {np.median(moved):.1f} ({np.percentile(moved, 90):.1f})"
            f" | {np.median(probability):+.2f} (±{np.percentile(np.abs(probability), 90):.2f})"
            f" | {np.median(diameter):+.0%} (±{np.percentile(np.abs(diameter), 90):.0%}) |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results: dict[tuple[str, str], list[dict]] = {}
    if arguments.out and arguments.out.exists():
        for line in arguments.out.read_text().splitlines():
            entry = json.loads(line)
            results[entry["scan"], entry["change"]] = entry["findings"]
    detector = make_detector(load_model(DEFAULT_MODEL), choose_device("auto"))
    for scan in arguments.scans:
        volume = orient(read_volume(scan))
        for change in CHANGES:
            if (scan.stem, change) in results:
                continue
            results[scan.stem, change] = found_in(volume, detector, change)
            print(f"{scan.stem}: {change}: {len(results[scan.stem, change])} candidates", flush=True)
            if arguments.out:
                entry = {"scan": scan.stem, "change": change, "findings": results[scan.stem, change]}
                with arguments.out.open("a") as file:
                    file.write(json.dumps(entry) + "\n")
    print(table(results, detector.model.calibration.threshold))


if __name__ == "__main__":
    main()
