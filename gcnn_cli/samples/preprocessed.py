"""Scans preprocessed once, on disk: the training grid around the lungs, candidates, places for transplants.

Training reads each scan many times. With a cache folder it is resampled, segmented and searched for candidates
once, and its voxels are memory-mapped, so that memory does not grow with the number of scans. The name of a cache
entry is a hash of the scan's content (checksum of its voxels and geometry) and of the settings. The content of
unchanged files (same paths, sizes and times) is not hashed again.
"""

import hashlib
import json
import os
import zipfile
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gcnn_cli.detection.detector import Detector
from gcnn_cli.detection.findings import Candidate
from gcnn_cli.detection.lungs import LungConfig, bounding_box, segment_lungs
from gcnn_cli.detection.proposals import ProposalConfig, Proposer, load_proposer
from gcnn_cli.errors import InputError
from gcnn_cli.files import make_folder, write_bytes
from gcnn_cli.labels.entries import ScanEntry
from gcnn_cli.samples.detection_candidates import candidates_key, detection_candidates, propose
from gcnn_cli.samples.sample import SampleConfig
from gcnn_cli.samples.transplant import choose_places
from gcnn_cli.scan.images.image_file import voxel_files
from gcnn_cli.scan.lattice import Lattice
from gcnn_cli.scan.resample import resample, resample_mask, search_spacing
from gcnn_cli.scan.volume import Volume

_FORMAT = 2  # raised when an entry's arrays change their meaning, or are computed in another way
_ARRAYS = ("to_world", "candidates", "places", "place_kinds", "pieces", "spacing_mm")  # of rest.npz


@dataclass(frozen=True, eq=False)
class PreprocessedScan:
    """A scan on the training grid.

    hu:         int16 [D, H, W] around the lungs, memory-mapped if it is in a cache
    to_world:   float64 [4, 4], (z, y, x, 1) voxels -> (x, y, z, 1) LPS mm
    candidates: float64 [N, 3], (z, y, x) voxels, strongest first: what training takes its negatives from
    places:     int64 [M, 3], voxels for transplants and shams: free, at the wall, at vessels in turn
    place_kinds: int64 [M], indices of `transplant.PLACE_KINDS`
    pieces:     int64 [M, 3], voxels whose surroundings are pasted as shams
    spacing_mm: largest voxel spacing of the scan as it was read
    scored:     float64 [K, 3], (z, y, x) voxels of the candidates that detection scores; empty without a detector
    content:    checksum of the voxels and the geometry of the scan as it was read
    """

    hu: NDArray[np.int16]
    to_world: NDArray[np.float64]
    candidates: NDArray[np.float64]
    places: NDArray[np.int64]
    place_kinds: NDArray[np.int64]
    pieces: NDArray[np.int64]
    spacing_mm: float
    scored: NDArray[np.float64]
    content: str = ""

    @cached_property
    def lattice(self) -> Lattice:
        """The lattice of `hu`."""
        depth, height, width = self.hu.shape
        return Lattice((depth, height, width), self.to_world)

    def index_zyx(self, positions_mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return voxel indices [N, 3], (z, y, x), of positions [N, 3] in LPS mm."""
        return self.lattice.index_zyx(positions_mm)

    def position_mm(self, index_zyx: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return positions [N, 3] in LPS mm of voxel indices [N, 3], (z, y, x)."""
        return self.lattice.position_mm(index_zyx)


def preprocess_scan(
    entry: ScanEntry,
    config: SampleConfig,
    seed: int,
    cache: Path | None = None,
    detector: Detector | None = None,
    proposer: Proposer | None = None,
) -> PreprocessedScan:
    """Preprocess a scan, or read it from the cache; with a detector, find the candidates that detection scores too.

    proposer: finds the candidates of training (default: the detector's, or the shipped one)

    Raises InputError for a damaged cache entry, and the errors of `scan.reading.read_volume`.
    """
    if proposer is None:
        proposer = detector.proposer if detector else load_proposer(torch.device("cpu"))
    if cache is None:
        return _preprocess(entry.read(), proposer, config, seed, detector)
    volume: Volume | None = None
    note = cache / f"seen-{_signature(entry)}"
    if note.is_file():
        content = _read_note(note)
    else:
        volume = entry.read()
        content = volume.source.sha256
        write_bytes(note, content.encode(), overwrite=True)
    asked = json.dumps([_FORMAT, content, entry.name, seed, asdict(config), proposer.name], sort_keys=True)
    folder = cache / hashlib.sha256(asked.encode()).hexdigest()[:32]
    scored = folder / f"scored-{candidates_key(detector)}.npy" if detector else None
    if not (folder / "rest.npz").is_file() or (scored and not scored.is_file()):
        _store(_preprocess(volume or entry.read(), proposer, config, seed, detector), folder, scored)
    return _load(folder, scored, content)


def _preprocess(
    volume: Volume, proposer: Proposer, config: SampleConfig, seed: int, detector: Detector | None
) -> PreprocessedScan:
    search = resample(volume, search_spacing(config.spacing_mm))
    lungs = segment_lungs(search, LungConfig())
    count = config.candidates_per_scan
    found = propose(volume, search, lungs, proposer, ProposalConfig(kept=count)) if count else []
    scored = detection_candidates(volume, search, lungs, detector) if detector else []
    rng = np.random.default_rng([seed, 3])
    count = config.transplants_per_scan + config.shams_per_scan
    places, place_kinds = choose_places(search.hu, lungs, count, rng)
    pieces, _ = choose_places(search.hu, lungs, count, rng)
    grid = search
    if len(set(config.spacing_zyx)) > 1:  # voxels that are no cubes: all was found on another grid
        grid = resample(volume, config.spacing_zyx)
        lungs = resample_mask(Volume(lungs.astype(np.int16), search.to_world), grid)
        places, pieces = (_nearest(search.position_mm(found_at.astype(float)), grid) for found_at in (places, pieces))
    # Cubes around places in the lungs reach half their side beyond them: air is outside the scan only.
    box = bounding_box(lungs, config.sides)
    low = np.array([span.start for span in box])
    return PreprocessedScan(
        np.ascontiguousarray(np.round(grid.hu[box]).astype(np.int16)),
        grid.lattice.cropped(box).to_world,
        _indices(found, grid) - low,
        places - low,
        place_kinds,
        pieces - low,
        float(volume.spacing_zyx.max()),
        _indices(scored, grid) - low,
        volume.source.sha256,
    )


def _nearest(positions_mm: NDArray[np.float64], grid: Volume) -> NDArray[np.int64]:
    """Return the voxels [N, 3] nearest to positions [N, 3]."""
    index = np.round(grid.index_zyx(positions_mm)).astype(np.int64)
    return np.clip(index, 0, np.array(grid.shape) - 1)


def _indices(candidates: list[Candidate], grid: Volume) -> NDArray[np.float64]:
    return grid.index_zyx(np.array([c.position_mm for c in candidates], float).reshape(-1, 3))


def _store(scan: PreprocessedScan, folder: Path, scored: Path | None) -> None:
    make_folder(folder)
    if not (folder / "rest.npz").is_file():
        _save(folder / "hu.npy", scan.hu)
        # Last: an entry with rest.npz has its voxels.
        _save(folder / "rest.npz", {name: getattr(scan, name) for name in _ARRAYS})
    if scored:
        _save(scored, scan.scored)


def _save(path: Path, content: NDArray[Any] | dict[str, Any]) -> None:
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    if isinstance(content, dict):
        np.savez(temporary, **content)
    else:
        np.save(temporary, content)
    temporary.replace(path)


def _load(folder: Path, scored: Path | None, content: str) -> PreprocessedScan:
    try:
        with (folder / "rest.npz").open("rb") as file, np.load(file) as rest:
            return PreprocessedScan(
                hu=np.load(folder / "hu.npy", mmap_mode="r"),
                **{name: rest[name] for name in _ARRAYS if name != "spacing_mm"},
                spacing_mm=float(rest["spacing_mm"]),
                scored=np.load(scored) if scored else np.zeros((0, 3)),
                content=content,
            )
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        raise InputError(f"{folder}: damaged cache entry; remove it") from None


def _read_note(note: Path) -> str:
    try:
        return note.read_text("utf-8").strip()
    except (OSError, ValueError):
        raise InputError(f"{note}: damaged cache entry; remove it") from None


def _signature(entry: ScanEntry) -> str:
    """Hash the names, sizes and times of a scan's files, and which of them it is: a folder may hold several series."""
    path = entry.path
    files = sorted(path.rglob("*")) if path.is_dir() else [path, *voxel_files(path)]
    stats = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.is_file()]
    return hashlib.sha256(json.dumps([str(path.resolve()), entry.name, stats]).encode()).hexdigest()[:32]
