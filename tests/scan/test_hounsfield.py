"""Values -> HU: clamping, refusals, and a checksum of the content."""

import numpy as np
import pytest
from scan.scans import axial, some_hu

from gcnn_cli.errors import InputError
from gcnn_cli.scan.hounsfield import checked_hu, content_sha256

INTEGERS = [np.int16, np.int32, np.int64, np.float32, np.float64]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_whole_values_become_int16_whatever_their_type(dtype: type) -> None:
    hu, warnings = checked_hu(some_hu().astype(dtype), "scan")
    assert hu.dtype == np.int16
    assert warnings == ()
    np.testing.assert_array_equal(hu, some_hu())


def test_fractions_stay() -> None:
    hu, _ = checked_hu(some_hu() + 0.25, "scan")
    assert hu.dtype == np.float32
    np.testing.assert_array_equal(hu, some_hu() + 0.25)


@pytest.mark.parametrize("padding", [-2000, -3024, -32768])
@pytest.mark.parametrize("dtype", INTEGERS)
def test_padding_becomes_air_with_a_warning(padding: int, dtype: type) -> None:
    values = some_hu().astype(dtype)
    values[0, 0] = padding
    hu, warnings = checked_hu(values, "scan")
    assert (hu[0, 0] == -1024).all()
    assert f"down to {padding}" in warnings[0]


def test_values_above_int16_do_not_wrap_around() -> None:
    values = some_hu().astype(np.int32)
    values[0, 0, 0] = 39000
    assert checked_hu(values, "scan")[0][0, 0, 0] == 32767


UNLIKELY = {
    "8 bits": np.arange(256),
    "0 to 1": np.linspace(0, 1, 256),
    "stored values": np.arange(4096),
    "no tissue": np.arange(-1000, -300),
    "nonsense": np.linspace(-1e9, 1e9, 256),
}


@pytest.mark.parametrize("name", UNLIKELY)
def test_values_that_are_not_hu_are_refused_with_their_range(name: str) -> None:
    with pytest.raises(InputError, match=r"Hounsfield units: values run from .* to "):
        checked_hu(np.resize(UNLIKELY[name], (4, 40, 40)), "scan")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(value: float) -> None:
    values = some_hu().astype(np.float32)
    values[1, 1, 1] = value
    with pytest.raises(InputError, match="NaN or infinite"):
        checked_hu(values, "scan")


def test_the_checksum_follows_content_not_storage() -> None:
    hu, to_world = some_hu(), axial()
    checksum = content_sha256(hu, to_world)
    assert content_sha256(np.asfortranarray(hu), to_world + 1e-7) == checksum
    changed = hu.copy()
    changed[0, 0, 0] += 1
    moved = to_world.copy()
    moved[0, 3] += 0.01
    others = [
        content_sha256(changed, to_world),
        content_sha256(hu, moved),
        content_sha256(hu.reshape(6, 5, 7), to_world),
    ]
    assert len({checksum, *others}) == 4
