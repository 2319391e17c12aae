"""A scan's axes are smoothed and interpolated one after the other, and the result is that of ITK on the whole image."""

import numpy as np
import pytest
import SimpleITK as sitk

from gcnn_cli.errors import InputError
from gcnn_cli.scan.resample import AIR_HU, _antialiasing_sigmas, as_image, orient, resample
from gcnn_cli.scan.separable import axis_map, map_axes
from gcnn_cli.scan.volume import Volume, make_affine

AXIAL = np.eye(3)[:, ::-1]
TILTED = np.array([[1, 0, 0], [0, 0.96, -0.28], [0, 0.28, 0.96]]) @ AXIAL


def by_itk(volume, made):
    """The volume on the lattice of another by ITK's filters, which act on a float copy of the whole image."""
    oriented = orient(volume)
    image = sitk.Clamp(as_image(oriented), sitk.sitkFloat32, AIR_HU, 32767.0)
    for axis, sigma_mm in enumerate(_antialiasing_sigmas(oriented.spacing_zyx, made.spacing_zyx)):
        if sigma_mm > 0:
            image = sitk.RecursiveGaussian(image, float(sigma_mm), direction=2 - axis)
    identity = sitk.Transform(3, sitk.sitkIdentity)
    lattice = as_image(made)
    # True: the outer half voxel takes the border's value.
    return sitk.GetArrayFromImage(
        sitk.Resample(
            image,
            lattice.GetSize(),
            identity,
            sitk.sitkLinear,
            lattice.GetOrigin(),
            lattice.GetSpacing(),
            lattice.GetDirection(),
            AIR_HU,
            sitk.sitkFloat32,
            True,
        )
    )


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("direction", [AXIAL, TILTED, -AXIAL[:, [1, 0, 2]]])
@pytest.mark.parametrize(
    ("shape", "spacing", "wanted_mm"),
    [
        ((24, 40, 37), (2.5, 0.7, 0.7), 1.0),  # thick slices: smoothed in the plane only
        ((31, 22, 26), (0.4, 0.5, 0.6), 1.0),  # smoothed along every axis
        ((12, 15, 13), (2.0, 1.7, 1.2), 0.8),  # finer than the scan
        ((20, 20, 20), (1.0, 1.0, 1.0), 1.0),
        ((1, 30, 30), (1.5, 0.9, 0.9), 1.0),  # a single slice
        ((9, 30, 33), (2.5, 0.6, 0.6), (2.5, 1.0, 1.0)),  # voxels that are no cubes
    ],
)
def test_the_result_is_that_of_whole_image_filters(dtype, direction, shape, spacing, wanted_mm):
    hu = np.random.default_rng(0).integers(-1500, 3000, shape).astype(dtype)
    volume = Volume(hu, make_affine(np.array(spacing), direction, np.array([5.0, -20.0, 7.0])))
    made = resample(volume, wanted_mm)
    assert made.hu.dtype == np.float32
    assert np.abs(made.hu - by_itk(volume, made)).max() < 0.02  # HU; rounding of float32 in another order


def test_values_beyond_int16_count_as_its_limits():
    hu = np.full((6, 6, 6), 40.0, np.float32)
    hu[2:4, 2:4, 2:4] = 1e6
    hu[0] = -3000
    made = resample(Volume(hu, make_affine(np.ones(3), AXIAL, np.zeros(3))), 1.0)
    assert made.hu.max() == 32767
    assert made.hu.min() == -1024


@pytest.mark.parametrize("sigma_mm", [0.0, 0.4, 0.9])
def test_every_new_voxel_is_a_weighted_mean(sigma_mm):
    weights = axis_map(200, 120, 0.6, 1.0, sigma_mm).weights
    assert weights.shape == (120, 200)
    assert np.allclose(weights.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("sigma_mm", [0.0, 0.6])
def test_a_ramp_stays_a_ramp(sigma_mm):
    """Known answer: a value that grows with the place keeps the place's value, away from the borders."""
    old, new, old_mm, new_mm = 150, 100, 0.6, 0.9
    ramp = (np.arange(old) - (old - 1) / 2) * old_mm
    expected = (np.arange(new) - (new - 1) / 2) * new_mm
    made = axis_map(old, new, old_mm, new_mm, sigma_mm).weights @ ramp
    assert np.allclose(made[10:-10], expected[10:-10], atol=1e-3)


def test_each_axis_has_its_own_map():
    """Three lengths and three maps: a value that depends on one axis is changed by that axis's map alone."""
    maps = axis_map(8, 4, 1.0, 2.0, 0.0), axis_map(6, 12, 1.0, 0.5, 0.0), axis_map(5, 5, 1.0, 1.0, 0.0)
    lengths = (8, 6, 5)
    for axis, along in enumerate(maps):
        line = np.random.default_rng(axis).uniform(-900, 900, lengths[axis]).astype(np.float32)
        shape = [1, 1, 1]
        shape[axis] = -1
        made = map_axes(np.broadcast_to(line.reshape(shape), lengths), (-1024, 32767), maps)
        assert made.shape == (4, 12, 5)
        assert np.allclose(made, (along.weights @ line).reshape(shape), atol=1e-3)


def test_too_few_slices_to_smooth_are_refused():
    thin = Volume(np.zeros((3, 60, 60), np.int16), make_affine(np.array([0.3, 1.0, 1.0]), AXIAL, np.zeros(3)))
    with pytest.raises(InputError, match="too small to resample"):
        resample(thin, 1.0)
