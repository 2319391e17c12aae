"""Labeled scans to train on."""

import pytest
from training.recipes import QUICK_RECIPE

from gcnn_cli.phantom import write_phantom


@pytest.fixture(scope="module")
def data(phantom, tmp_path_factory):
    """Write two labeled scans of two patients, with the recipe and a cache beside them."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("LIDC-IDRI-0001", "LIDC-IDRI-0002"):
        write_phantom(phantom, folder / "data" / name, name=name)
    (folder / "quick.toml").write_text(QUICK_RECIPE)
    return folder
