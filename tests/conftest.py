"""What several rooms test with: the real data, a small phantom, seeded networks."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # several test processes share the cores: one thread each, before numpy starts
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch

from gcnn_cli.network.architecture import GCNN, NetworkConfig
from gcnn_cli.phantom import Phantom, make_phantom, quick_config
from gcnn_cli.scan.volume import Volume

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """What --quiet and --verbose did to the log ends with the test."""
    yield
    logging.getLogger("gcnn").setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def sample() -> Path:
    """The synthetic scan that ships with the project."""
    return ROOT / "sample_data" / "thorax.mhd"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data beside the checkout; the test is skipped where it is not."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real CT data is not beside this checkout (../shared/data)")
    return folder


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    """A coarse phantom, quick to make and to search."""
    return make_phantom(quick_config(3, nodules=7))


@pytest.fixture
def network() -> GCNN:
    """A small O network with random weights and norms that have seen data, in eval mode."""
    return make_network("O")


def make_network(group: str, side: int = 8, seed: int = 0) -> GCNN:
    """Random weights, and running statistics and scales that differ between fields."""
    torch.manual_seed(seed)
    config = NetworkConfig(group=group, fields=(2, 2, 3), pool_after=(1,), side=side, head_fields=4)
    made = GCNN(config)
    for name, value in made.state_dict().items():
        if value.dtype.is_floating_point and "norm" in name:
            value.copy_(torch.rand(value.shape) + 0.5)
    return made.eval()


def turned(volume: Volume, matrix: np.ndarray) -> Volume:
    """The same patient with the array turned by a signed permutation and the affine to match."""
    axes = np.abs(matrix).argmax(axis=1)
    hu, to_world = volume.hu.transpose(axes), volume.to_world.copy()
    to_world[:, :3] = to_world[:, axes]
    for axis in np.flatnonzero(matrix.sum(axis=1) < 0):
        to_world[:3, 3] += to_world[:3, axis] * (hu.shape[axis] - 1)
        to_world[:3, axis] *= -1
        hu = np.flip(hu, axis)
    return Volume(np.ascontiguousarray(hu), to_world, volume.source)
