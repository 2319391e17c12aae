"""Ways to bring a scan's patches to a device: as detection does it, with copies on a stream of their own, cut there."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from gcnn_cli.detection.patches import patch_batches, scale_hu
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.scan.resample import AIR_HU
from gcnn_cli.scan.volume import Volume

Positions = Sequence[tuple[float, float, float]]


def cut_on_the_host(
    grid: Volume, positions: Positions, spec: InputSpec, size: int, device: torch.device
) -> Iterator[Tensor]:
    """As detection does it: `Scorer` pins each batch and moves it on the stream that computes."""
    del device
    return patch_batches(grid, positions, spec, size)


def double_buffered(
    grid: Volume, positions: Positions, spec: InputSpec, size: int, device: torch.device
) -> Iterator[Tensor]:
    """Cut on the host; the copy of a batch overlaps with the computation of the one before."""
    batches = patch_batches(grid, positions, spec, size)
    return _copied_ahead(batches, device) if device.type == "cuda" else batches


def cut_on_the_device(
    grid: Volume, positions: Positions, spec: InputSpec, size: int, device: torch.device
) -> Iterator[Tensor]:
    """The whole grid is moved once, and patches are read out of it there: the same voxels as `patch_batches`."""
    sides = np.array(spec.sides)
    # As wide a rim of air as a patch: one that lies beyond the scan is all rim.
    padded = torch.full(tuple(np.array(grid.shape) + 2 * sides), AIR_HU, dtype=torch.float32, device=device)
    inner = tuple(slice(side, side + length) for side, length in zip(sides, grid.shape, strict=True))
    padded[inner] = torch.tensor(grid.hu).to(device, torch.float32)
    indices = grid.index_zyx(np.array(positions, float).reshape(-1, 3))
    starts = np.floor(indices - (sides - 1) / 2 + 0.5).astype(int)
    first = torch.from_numpy(np.clip(starts, -sides, grid.shape) + sides).to(device)
    steps = [torch.arange(side, device=device) for side in spec.sides]
    for corner in first.split(size):
        z, y, x = (corner[:, axis, None] + steps[axis] for axis in range(3))
        cubes = padded[z[:, :, None, None], y[:, None, :, None], x[:, None, None, :]]
        yield scale_hu(cubes, spec).unsqueeze(1)


def _copied_ahead(batches: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    """Yield batches on a GPU, each copied from pinned memory while the one before is computed."""
    copies = torch.cuda.Stream(device)
    ahead: list[tuple[Tensor, torch.cuda.Event]] = []
    for batch in batches:
        with torch.cuda.stream(copies):
            moved = batch.pin_memory().to(device, non_blocking=True)
            ahead.append((moved, copies.record_event()))
        if len(ahead) > 1:
            yield _ready(*ahead.pop(0))
    for waiting in ahead:
        yield _ready(*waiting)


def _ready(batch: Tensor, copied: torch.cuda.Event) -> Tensor:
    """Let the stream that computes wait for a copy, and keep the memory until it has read it."""
    computing = torch.cuda.current_stream(batch.device)
    computing.wait_event(copied)
    batch.record_stream(computing)
    return batch


FEEDS = {
    "cut on the host (detection)": cut_on_the_host,
    "copied ahead on a stream of its own": double_buffered,
    "cut on the device": cut_on_the_device,
}
