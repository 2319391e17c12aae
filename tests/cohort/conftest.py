"""A cohort that is quick to search, written once."""

from pathlib import Path

import pytest
from cohort.thin import write_thin_scans, write_weights

from gcnn_cli.phantom import Phantom


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small random weights."""
    return write_weights(tmp_path_factory.mktemp("weights") / "small.safetensors")


@pytest.fixture(scope="session")
def thin(phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twenty thin scans."""
    return write_thin_scans(phantom, tmp_path_factory.mktemp("thin"), 20)
