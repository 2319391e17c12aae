"""A chest is recognized, whole or in part; heads, bellies, knees, phantoms and tables are refused."""

import numpy as np
import pytest
from detection.bodies import BODIES, belly, box, cylinder, drawn

from gcnn_cli.detection import chest
from gcnn_cli.detection.chest import doubts, lung_volume_ml, mask_doubts
from gcnn_cli.detection.lungs import LungConfig, segment_lungs
from gcnn_cli.errors import InputError
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.resample import orient, resample
from gcnn_cli.scan.volume import Source, Volume

DECEIVED = {  # which check refuses it; the others have no piece of air as large as a lung, or one of gas alone
    "head in a padded holder": "as even as foam",
    "head on a shell": "open to the room",
    "head in thin slices": "as even as foam",
    "head in cloth": "open to the room",
    "belly": "pure gas",
    "belly in thin slices": "as even as foam",
    "noisy belly": "pure gas",
    "empty table": "as even as foam",
    "hollow table": "open to the room",
}
REFUSED_AS = {**DECEIVED, "air phantom": "mL of air inside the body are pure gas"}


def lungs_of(volume: Volume):
    grid = resample(volume, 1.0)
    return segment_lungs(grid, LungConfig()), grid


def cut(volume: Volume, z=slice(None), y=slice(None), x=slice(None)) -> Volume:
    to_world = volume.to_world.copy()
    to_world[:3, 3] = volume.position_mm(np.array([s.start or 0 for s in (z, y, x)], float))
    return Volume(volume.hu[z, y, x].copy(), to_world)


@pytest.mark.parametrize("name", BODIES)
def test_what_is_not_a_chest_is_refused(name):
    with pytest.raises(InputError, match="no lung found") as refusal:
        lungs_of(BODIES[name]())
    assert REFUSED_AS.get(name, "the largest piece of air inside the body holds") in str(refusal.value)


@pytest.mark.parametrize("name", DECEIVED)
def test_these_deceived_a_search_that_only_looks_at_size(name, monkeypatch):
    monkeypatch.setattr("gcnn_cli.detection.lungs.why_not_lung", lambda *arguments: "")
    found, _ = lungs_of(BODIES[name]())
    assert found.any()


def test_a_rim_without_depth_is_refused(monkeypatch):
    """The hollow table again, where its air does not count as the room's."""
    monkeypatch.setattr(chest, "_MOST_NEAR", 1.0)
    with pytest.raises(InputError, match="a rim without depth"):
        lungs_of(BODIES["hollow table"]())


def test_lung_bases_above_a_belly_are_kept_and_its_gas_is_not(phantom):
    """The lower part of the phantom's lungs on top of a belly."""
    low = cut(phantom.volume, z=slice(0, 40))
    body = np.where(low.hu < -300, np.int16(40), low.hu)
    body[:, : low.shape[1] // 8], body[:, -low.shape[1] // 8 :] = low.hu[:, : low.shape[1] // 8], -1000
    grid_yx = np.ogrid[: low.shape[1], : low.shape[2]]
    gas = (grid_yx[0] - low.shape[1] / 2) ** 2 + (grid_yx[1] - low.shape[2] / 2) ** 2 < 15**2
    body[5:35, gas] = -1000
    found, grid = lungs_of(Volume(np.concatenate([body, low.hu]), low.to_world))
    height = found.shape[0] // 2
    assert found[height:].sum() > 500e3
    assert found[: height - 12].sum() == 0
    assert doubts(found, grid) == ()


@pytest.mark.parametrize("side", ["left", "right"])
def test_one_lung_is_searched_and_stated(phantom, side):
    """The other is filled, as after its removal."""
    hu = phantom.volume.hu.copy()
    middle = hu.shape[2] // 2
    other = np.s_[:, :, :middle] if side == "left" else np.s_[:, :, middle:]  # columns run to the patient's left
    hu[other] = np.where(phantom.lungs[other], 20, hu[other])
    found, grid = lungs_of(Volume(hu, phantom.volume.to_world))
    (warning,) = doubts(found, grid)
    assert f"lie on the patient's {side}" in warning
    assert f"{lung_volume_ml(found, 1.0):.0f} mL" in warning


def test_whole_lungs_raise_no_doubt_and_small_ones_do(phantom):
    assert doubts(*lungs_of(phantom.volume)) == ()
    middle = phantom.volume.shape[0] // 2
    found, grid = lungs_of(cut(phantom.volume, z=slice(middle, middle + 8)))
    (warning,) = doubts(found, grid)
    assert f"hold {lung_volume_ml(found, 1.0):.0f} mL, usual are 1000 to 10000 mL: a part of a chest" in warning


def test_lungs_beyond_any_patient_raise_a_doubt():
    grid = Volume(np.full((40, 40, 40), -800, np.int16), np.diag([10.0, 10, 10, 1])[[2, 1, 0, 3]])
    assert "hold 64000 mL" in doubts(np.ones((40, 40, 40), bool), grid)[0]


def test_volumes_are_in_milliliters():
    assert lung_volume_ml(np.ones((10, 10, 10), bool), 2.0) == 8.0


def real_scans(shared_data):
    return [shared_data / "dicom" / "LIDC-IDRI-0001", *sorted((shared_data / "scans").glob("*.mha"))]


@pytest.mark.data
@pytest.mark.parametrize("number", range(11))
def test_real_chests_pass_whole_and_in_part(shared_data, number):
    """Whole raises no doubt; its lower and upper half are not refused."""
    volume = orient(read_volume(real_scans(shared_data)[number]))
    whole, grid = lungs_of(volume)
    assert doubts(whole, grid) == ()
    height = np.cumsum(whole.sum(axis=(1, 2))) / whole.sum()
    middle = round(float(np.searchsorted(height, 0.5) / volume.spacing_zyx[0]))
    for part in (slice(0, middle), slice(middle, None)):
        found, _ = lungs_of(cut(volume, z=part))
        assert 0.4 < found.sum() / whole.sum() < 0.6


def test_the_drawn_bodies_are_what_they_are_called():
    """Air outside, tissue inside, slices of the stated thickness."""
    volume = drawn(belly, (200, 300, 380))
    assert volume.spacing_zyx.tolist() == [5.0, 1.5, 1.5]
    assert abs(float(volume.hu[:, :3].mean()) + 1000) < 5
    assert (volume.hu > 0).mean() > 0.2
    inside = drawn(lambda grid, hu: hu.__setitem__(cylinder(grid, (0, 0), (30, 30)), 40.0), (20, 90, 90), noise_hu=0)
    assert abs((inside.hu > -480).sum() * 5 * 1.5**2 / (20 * np.pi * 30**2) - 1) < 0.02
    cube = drawn(lambda grid, hu: hu.__setitem__(box(grid, (-30, -30, -99), (30, 30, 99)), 40.0), (20, 90, 90))
    assert abs((cube.hu > -480).sum() * 5 * 1.5**2 / (20 * 60**2) - 1) < 0.05


def test_a_given_mask_passes_on_its_warnings_and_must_lie_in_the_scan():
    hu = np.zeros((20, 20, 20), np.int16)
    mask = np.zeros_like(hu)
    mask[5:15, 5:15, 5:15] = 1
    grid = Volume(hu, np.eye(4))
    assert mask_doubts(Volume(mask, np.eye(4)), grid) == ()
    moved = np.eye(4)
    moved[0, 3] = 8  # three of ten columns lie outside
    (text,) = mask_doubts(Volume(mask, moved), grid)
    assert text == "lung mask: 30 % of it lie outside the scan: is it of this scan?"
    warned = Volume(mask, np.eye(4), Source("m.nii", "nifti", "m", warnings=("which way is up?",)))
    assert mask_doubts(warned, grid) == ("lung mask: which way is up?",)
