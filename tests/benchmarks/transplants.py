"""A benchmark to detect in: held-out nodules of real patients put into held-out real scans.

    python tests/benchmarks/transplants.py DATA OUT [--model octahedral]
    gcnn evaluate --froc --data OUT/labelled --model octahedral

DATA is the training data; the model's provenance says which patients and scans it has not seen. Each of
those scans becomes several with 25 nodules of 4 to 25 mm each, of those patients alone: a third in free
lung, a third at the wall, a third on vessels. Nodules that the scans hold anyway stay in the lists.

OUT/labelled holds scans that readers looked at: false positives can be counted in them. OUT/unlabelled
holds the others, which may hold lesions that nobody marked: only sensitivity can be measured there.

Nothing is shared with the transplants of training: nodules are turned by any angle and interpolated once,
straight onto the host's own voxels; the seam is a linear ramp of 1.5 mm outside the mask, and keeps the
host where that is brighter (a wall, a vessel). Where it cannot be seen, a nodule is not put: half of its
voxels must come out at least 100 HU brighter than what was there. Not life: nothing is pulled in or fed.
"""

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from gcnn_cli.labels.entries import ScanEntry
from gcnn_cli.labels.index import read_index
from gcnn_cli.network.proposal_weights import PROPOSAL_FORMAT
from gcnn_cli.network.weights import SCORING_FORMATS, find_weights, read_weights
from gcnn_cli.scan.volume import Volume
from gcnn_cli.scan.writing import write_metaimage

NODULES = 25
DIAMETERS_MM = (4.0, 25.0)
RAMP_MM = 1.5
SEEN_HU, SEEN_SHARE = 100.0, 0.5
APART_MM = 32.0
SETS = {True: 4, False: 2}  # of a labelled host, of one without labels
PLACES = ("free", "wall", "vessel")
_MARK = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm", "place", "patient")
TABLES = {"annotations": _MARK, "annotations_excluded": _MARK, "seriesuids": ("seriesuid",)}


@dataclass(frozen=True)
class Nodule:
    """A cut-out at its own spacing: hu, mask [D, H, W]; center (z, y, x) in voxels; diameter of equal volume."""

    hu: np.ndarray
    mask: np.ndarray
    spacing: np.ndarray
    center: np.ndarray
    diameter_mm: float
    patient: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="octahedral")
    arguments = parser.parse_args()
    provenance = provenance_of(arguments.model)
    held_out, trained_on = set(provenance["held_out_patients"]), set(provenance["training_series"])
    make_benchmark([arguments.data], arguments.out, held_out, trained_on)


def make_benchmark(
    data: list[Path], out: Path, held_out: set[str], trained_on: set[str], sets: dict[bool, int] = SETS
) -> None:
    """Write both folders.

    data:       folders of the scans, cut-outs and labels
    held_out:   patients of the nodules and of the scans
    trained_on: scans that are left out
    sets:       copies of a scan, by whether it is labeled
    """
    index = read_index(data)
    donors = [entry for entry in index.cutouts if entry.masked and entry.patient in held_out]
    nodules = [nodule for entry in donors if (nodule := read_nodule(entry.path, entry.patient))]
    hosts = [scan for scan in index.scans if scan.name not in trained_on and scan.patient in held_out]
    print(f"{len(nodules)} nodules of held-out patients; hosts: {', '.join(host.path.name for host in hosts)}")
    for labelled in (True, False):
        folder = out / ("labelled" if labelled else "unlabelled")
        folder.mkdir(parents=True)
        tables: dict[str, list[tuple[object, ...]]] = {name: [] for name in TABLES}
        for number, host in enumerate(hosts):
            if host.labelled != labelled:
                continue
            volume = host.read()
            for n in range(sets[labelled]):
                name = f"{host.patient}_host{number}_set{n}"  # a patient may have several scans
                made, placed = transplant(volume, host, nodules, np.random.default_rng([number, n]))
                write_metaimage(made, folder / f"{name}.mhd")
                tables["annotations"] += [(name, *mark) for mark in placed]
                tables["annotations"] += [(name, *mark, "own", host.patient) for mark in host.nodules]
                tables["annotations_excluded"] += [(name, *mark, "", host.patient) for mark in host.excluded]
                tables["seriesuids"].append((name,))
                print(f"{name}: {len(placed)} nodules put in", flush=True)
        for table, rows in tables.items():
            with (folder / f"{table}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([TABLES[table], *rows])


def provenance_of(model: str) -> dict[str, list[str]]:
    """Return where weights of any kind come from, those that score candidates and those that propose them."""
    header, _, _ = read_weights(find_weights(model), (*SCORING_FORMATS, PROPOSAL_FORMAT))
    return dict(header["provenance"])


def read_nodule(path: Path, patient: str) -> Nodule | None:
    """A stack of slices; None for a cube or a size out of range."""
    with np.load(path) as data:
        if "spacing_zyx" not in data:
            return None
        hu, mask, spacing = data["hu"].astype(np.float32), data["mask"], data["spacing_zyx"].astype(float)
    diameter = float((6 / np.pi * mask.sum() * spacing.prod()) ** (1 / 3))
    if not DIAMETERS_MM[0] <= diameter <= DIAMETERS_MM[1] or spacing[0] > 2.5:
        return None
    return Nodule(hu, mask, spacing, np.array(ndimage.center_of_mass(mask)), diameter, patient)


def transplant(
    volume: Volume, host: ScanEntry, nodules: list[Nodule], rng: np.random.Generator
) -> tuple[Volume, list[tuple[object, ...]]]:
    """The scan with nodules in it, and their marks: x, y, z in LPS mm, diameter, place, the nodule's patient."""
    hu = volume.hu.astype(np.float32)
    spacing = volume.spacing_zyx
    pools = places(hu, spacing, rng)
    taken = [np.array(mark[:3]) for mark in (*host.nodules, *host.excluded)]
    marks: list[tuple[object, ...]] = []
    chosen = rng.permutation(len(nodules))
    for count, which in enumerate(chosen):
        if len(marks) == NODULES:
            break
        pool, kind = pools[count % 3], PLACES[count % 3]
        for place in pool[rng.permutation(len(pool))[:100]]:
            position = volume.position_mm(place[None].astype(float))[0]
            if all(np.linalg.norm(position - other) > APART_MM for other in taken):
                center = insert(hu, spacing, place, nodules[which], rng)
                if center is None:
                    continue
                position = volume.position_mm(center[None])[0]
                taken.append(position)
                nodule = nodules[which]
                x, y, z = (round(float(v), 3) for v in position)
                marks.append((x, y, z, round(nodule.diameter_mm, 3), kind, nodule.patient))
                break
    made = np.clip(np.round(hu), -32768, 32767).astype(np.int16)
    return Volume(made, volume.to_world), marks


def places(hu: np.ndarray, spacing: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Voxels in free lung, at the wall and on vessels, each [N, 3]."""
    air = ndimage.binary_opening(hu < -500, iterations=1)
    labels, _ = ndimage.label(air)
    outside = set(np.unique(np.concatenate([labels[:, 0].ravel(), labels[:, -1].ravel(), labels[:, :, 0].ravel()])))
    outside |= set(np.unique(labels[:, :, -1]))
    sizes = np.bincount(labels.ravel())
    sizes[list(outside | {0})] = 0
    lung = np.isin(labels, np.flatnonzero(sizes > 0.1 * sizes.max()))
    depth = ndimage.distance_transform_edt(ndimage.binary_closing(lung, iterations=6), sampling=spacing)
    tissue = ndimage.distance_transform_edt(lung, sampling=spacing)  # to wall or vessel
    free = np.argwhere((tissue > 7) & (hu < -700))
    wall = np.argwhere((depth > 2) & (depth < 5) & (tissue < 5))
    vessel = np.argwhere((depth > 9) & (hu > -300))
    return [pool[rng.permutation(len(pool))[:20_000]] for pool in (free, wall, vessel)]


def insert(
    hu: np.ndarray, spacing: np.ndarray, place: np.ndarray, nodule: Nodule, rng: np.random.Generator
) -> np.ndarray | None:
    """Put a nodule into the scan, in place; its center of mass there in voxels, None where it would not show."""
    reach = nodule.diameter_mm * 1.3 + 2 * RAMP_MM
    low = np.maximum(0, np.floor(place - reach / spacing)).astype(int)
    high = np.minimum(hu.shape, np.ceil(place + reach / spacing) + 1).astype(int)
    window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    grid = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), axis=-1)
    offsets = (grid - place) * spacing @ Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    source = np.moveaxis(offsets / nodule.spacing + nodule.center, -1, 0)
    new = ndimage.map_coordinates(nodule.hu, source, order=1, mode="nearest")
    inside = ndimage.map_coordinates(nodule.mask.astype(np.float32), source, order=1, mode="constant") > 0.5
    away = ndimage.distance_transform_edt(~inside, sampling=spacing)
    weight = np.clip(1 - away / RAMP_MM, 0, 1)
    old = hu[window]
    if not inside.any() or (new - old > SEEN_HU)[inside].mean() < SEEN_SHARE:
        return None
    mixed = old + weight * (new - old)
    hu[window] = np.where(inside, new, np.maximum(old, mixed))
    return np.array(ndimage.center_of_mass(inside)) + low


if __name__ == "__main__":
    main()
