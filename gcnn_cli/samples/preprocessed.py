"""A scan searched once: the training grid around the lungs, its candidates, places for transplants; on disk.

Resampling, lungs and candidates take some ten seconds a scan, training reads them again and again. With a
cache folder each scan is searched once and its voxels are memory-mapped, so that memory does not grow with
the number of scans. An entry is named by the scan's content (the checksum of its voxels and geometry) and
by what was asked; the content of an unchanged file (path, size, time) is remembered too.
"""

import glob
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.detection.candidates import CandidateConfig, find_candidates
from gcnn_cli.detection.lungs import LungConfig, bounding_box, segment_lungs
from gcnn_cli.files import write_bytes
from gcnn_cli.labels.entries import ScanEntry
from gcnn_cli.samples.samples import SampleConfig
from gcnn_cli.samples.transplant import choose_places
from gcnn_cli.scan.lattice import Lattice
from gcnn_cli.scan.resample import resample
from gcnn_cli.scan.volume import Volume

_FORMAT = 1  # raised when what an entry holds changes its meaning


@dataclass(frozen=True, eq=False)
class PreprocessedScan:
    """A scan on the training grid.

    hu:         int16 [D, H, W] around the lungs, memory-mapped where it lies in a cache
    to_world:   float64 [4, 4], (z, y, x, 1) voxels -> (x, y, z, 1) LPS mm
    candidates: float64 [N, 3], (z, y, x) voxels, the strongest first
    places:     int64 [M, 3], voxels for transplants and shams: free, at the wall, at vessels in turn
    pieces:     int64 [M, 3], what shams are made of
    spacing_mm: the largest of the scan as it was read
    """

    hu: NDArray[np.int16]
    to_world: NDArray[np.float64]
    candidates: NDArray[np.float64]
    places: NDArray[np.int64]
    pieces: NDArray[np.int64]
    spacing_mm: float

    @cached_property
    def lattice(self) -> Lattice:
        """The lattice of `hu`."""
        depth, height, width = self.hu.shape
        return Lattice((depth, height, width), self.to_world)

    def index_zyx(self, positions_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """LPS mm [N, 3] -> voxels [N, 3]."""
        return self.lattice.index_zyx(positions_mm)

    def position_mm(self, index_zyx: NDArray[np.float64]) -> NDArray[np.float64]:
        """Voxels [N, 3] -> LPS mm [N, 3]."""
        return self.lattice.position_mm(index_zyx)


def preprocess_scan(entry: ScanEntry, config: SampleConfig, seed: int, cache: Path | None = None) -> PreprocessedScan:
    """Search a scan, or read what an earlier search left. Raises as reading does."""
    if cache is None:
        return _search(entry.read(), config, seed)
    volume: Volume | None = None
    note = cache / f"seen-{_signature(entry.path)}"
    if note.is_file():
        content = note.read_text().strip()
    else:
        volume = entry.read()
        content = volume.source.sha256
        write_bytes(note, content.encode(), overwrite=True)
    asked = json.dumps([_FORMAT, content, entry.name, seed, asdict(config)], sort_keys=True)
    folder = cache / hashlib.sha256(asked.encode()).hexdigest()[:32]
    if not (folder / "rest.npz").is_file():  # written last
        _store(_search(volume or entry.read(), config, seed), folder)
    with np.load(folder / "rest.npz") as rest:
        return PreprocessedScan(
            np.load(folder / "hu.npy", mmap_mode="r"),
            rest["to_world"],
            rest["candidates"],
            rest["places"],
            rest["pieces"],
            float(rest["spacing_mm"]),
        )


def _search(volume: Volume, config: SampleConfig, seed: int) -> PreprocessedScan:
    grid = resample(volume, config.spacing_mm)
    lungs = segment_lungs(grid, LungConfig())
    found = find_candidates(grid, lungs, CandidateConfig(max_candidates=config.candidates_per_scan))
    positions = np.array([c.position_mm for c in found]).reshape(-1, 3)
    rng = np.random.default_rng([seed, 3])
    count = config.transplants_per_scan + config.shams_per_scan
    places, pieces = (choose_places(grid.hu, lungs, count, rng) for _ in range(2))
    # Cubes around places in the lungs reach half their side beyond them: air is outside the scan only.
    box = bounding_box(lungs, config.side)
    low = np.array([span.start for span in box])
    return PreprocessedScan(
        np.ascontiguousarray(np.round(grid.hu[box]).astype(np.int16)),
        grid.lattice.cropped(box).to_world,
        grid.index_zyx(positions) - low,
        places - low,
        pieces - low,
        float(volume.spacing_zyx.max()),
    )


def _store(scan: PreprocessedScan, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("hu.npy", "rest.npz"):  # the rest last: where it is, the voxels are
        temporary = folder / f".{os.getpid()}-{name}"
        if name == "hu.npy":
            np.save(temporary, scan.hu)
        else:
            rest = {key: getattr(scan, key) for key in ("to_world", "candidates", "places", "pieces", "spacing_mm")}
            np.savez(temporary, **rest)
        temporary.replace(folder / name)


def _signature(path: Path) -> str:
    """Of a file and its companions (a .mhd's voxels), or of a folder's files: names, sizes, times."""
    files = sorted(path.rglob("*") if path.is_dir() else path.parent.glob(glob.escape(path.name.split(".")[0]) + "*"))
    stats = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in [path, *files] if f.is_file()]
    return hashlib.sha256(json.dumps([str(path.resolve()), stats]).encode()).hexdigest()[:32]
