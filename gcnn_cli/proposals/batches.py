"""The composition of batches of tiles: nodules in their own surroundings, nodules put into scans, and lung alone.

Small and large nodules are rarer than those in between, and are drawn more often than they occur. Small ones are put
on vessels more often than elsewhere, because there they are missed most often. Tiles of lung alone lie anywhere in the
scans, or where the network itself was wrong (`TileSampler.hard`).
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gcnn_cli.errors import InputError
from gcnn_cli.proposals.pasting import Nodule, corner_of, paste, vary_nodule
from gcnn_cli.proposals.scenes import Places, Scene
from gcnn_cli.proposals.tiles import Tile, TileGeometry, cut_cube, make_tile

# Diameters in voxels between the size classes, and the weight of each class.
_SIZES = (5.0, 7.0, 10.0, 14.0, 20.0)
_SIZE_WEIGHTS = (1.2, 1.3, 1.0, 0.8, 0.7, 0.7)
_FEWEST = 25  # a class with fewer nodules is drawn as if it had this many, so that none repeats too often
_SMALL_VOX = 7.0
_HOST_SHARES = {True: (0.2, 0.3, 0.5), False: (0.3, 0.45, 0.25)}  # by "is small": free, wall, vessel
_OFF_CENTER = 0.8  # largest distance of a nodule from the middle of its tile, as a share of the map's reach
_HARD_SHARE = 0.6  # of the tiles of lung alone


@dataclass(frozen=True)
class BatchConfig:
    """Number of tiles of each kind in a batch. Raises InputError for fewer than two tiles or a negative number."""

    chunks: int = 5
    cutouts: int = 2
    transplants: int = 5
    marks: int = 1
    lung: int = 3

    def __post_init__(self) -> None:
        counts = (self.chunks, self.cutouts, self.transplants, self.marks, self.lung)
        if min(counts) < 0 or sum(counts) < 2:
            raise InputError(f"a batch must have at least 2 tiles and no negative numbers of tiles, got {self}")

    @property
    def kinds(self) -> list[str]:
        """Kind of each tile in a batch."""
        return (
            ["chunk"] * self.chunks
            + ["cut-out"] * self.cutouts
            + ["transplant"] * self.transplants
            + ["mark"] * self.marks
            + ["lung"] * self.lung
        )


@dataclass(eq=False)
class TileSampler:
    """A source of random batches of tiles. Raises InputError without scans or without nodules.

    hard: number of a scan -> places of the network's highest false peaks in it
    """

    scenes: list[Scene]
    geometry: TileGeometry
    config: BatchConfig
    hard: dict[int, Places] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = range(len(self.scenes))
        self._scans = [n for n in numbers if self.scenes[n].kind == "scan"]
        self._of: dict[str, list[int]] = {
            "chunk": [n for n in numbers if self.scenes[n].kind == "chunk"],
            "cut-out": [n for n in numbers if self.scenes[n].kind == "cut-out"],
            "transplant": [n for n in self._scans if any(len(places) for places in self.scenes[n].hosts)],
            "mark": [n for n in self._scans if len(self.scenes[n].nodules)],
            "lung": self._scans,
        }
        self._weights = {kind: self._by_size(self._of[kind]) for kind in ("chunk", "cut-out")}
        if not self._scans or not (self._of["chunk"] or self._of["cut-out"] or self._of["mark"]):
            raise InputError("proposal training needs scans, and nodules marked in them or in cut-outs")
        # Without chunks and cut-outs, three quarters of the default batch would be lung alone.
        self._substitute = "lung" if self._of["chunk"] or self._of["cut-out"] else "mark"

    def draw(self, rng: np.random.Generator) -> list[tuple[Tile, bool]]:
        """Return the tiles of one batch, each with True if every nodule in its scene is marked.

        Tiles of lung replace a kind that the data lack. Without chunks and cut-outs, marks replace them.
        """
        return [self._tile(kind, rng) for kind in self.config.kinds]

    def _tile(self, kind: str, rng: np.random.Generator) -> tuple[Tile, bool]:
        usable = self._of[kind] and (kind != "transplant" or self._of["cut-out"])
        kind = kind if usable else self._substitute
        weights = self._weights.get(kind)
        number = int(rng.choice(self._of[kind], p=weights))
        scene, reach = self.scenes[number], _OFF_CENTER * self.geometry.reach
        nodules = scene.nodules
        if kind == "transplant":
            place, pasted = self._transplant(scene, rng)
            cube, start = cut_cube(scene, place + rng.uniform(-reach, reach, 3), self.geometry)
            if paste(cube, start, place, scene.noise_hu, pasted):
                center = corner_of(place, pasted) + pasted.center
                nodules = np.vstack([nodules, [*center, pasted.diameter]])
        else:
            place = self._place(kind, number, rng)
            cube, start = cut_cube(scene, place + rng.uniform(-reach, reach, 3), self.geometry)
        return make_tile(scene, cube, start, nodules, self.geometry, rng), scene.labelled

    def _transplant(self, scene: Scene, rng: np.random.Generator) -> tuple[NDArray[np.float64], Nodule]:
        chosen = self.scenes[int(rng.choice(self._of["cut-out"], p=self._weights["cut-out"]))]
        assert chosen.donor is not None  # for the type checker
        diameter = float(chosen.nodules[0, 3])
        pool = scene.hosts[int(rng.choice(3, p=_HOST_SHARES[diameter < _SMALL_VOX]))]
        pool = pool if len(pool) else max(scene.hosts, key=len)
        return pool[rng.integers(len(pool))], vary_nodule(chosen.donor, diameter, rng)

    def _place(self, kind: str, number: int, rng: np.random.Generator) -> NDArray[np.float64]:
        scene = self.scenes[number]
        pool: Places | None = scene.nodules[:, :3]
        if kind == "lung":
            hard = self.hard.get(number, np.zeros((0, 3)))
            pool = hard if len(hard) and rng.random() < _HARD_SHARE else scene.lung
        assert pool is not None  # for the type checker: every scan has places of lung
        return np.asarray(pool[rng.integers(len(pool))])

    def _by_size(self, numbers: list[int]) -> NDArray[np.float64]:
        sizes = np.digitize([self.scenes[n].nodules[0, 3] for n in numbers], _SIZES)
        counts = np.maximum(np.bincount(sizes, minlength=len(_SIZE_WEIGHTS)), _FEWEST)
        weights = (np.array(_SIZE_WEIGHTS) / counts)[sizes]
        return np.asarray(weights / max(weights.sum(), 1e-9))
