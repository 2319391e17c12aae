"""A scan as NIfTI bytes lies where the scan lies, in every frame, for this reader and for ITK's."""

import numpy as np
import pytest
import SimpleITK as sitk
from review.results import FRAMES
from scan.scans import some_hu

from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.volume import Volume
from gcnn_cli.scan.writing import nifti_parts


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("frame", FRAMES)
def test_voxels_and_places_stay(tmp_path, frame, dtype):
    fraction = 0.25 if dtype is np.float32 else 0  # the reader turns whole numbers into integers
    volume = Volume((some_hu((5, 6, 7)) + fraction).astype(dtype), FRAMES[frame])
    path = tmp_path / "scan.nii"
    path.write_bytes(b"".join(nifti_parts(volume, (-1350.0, 150.0))))
    again = read_volume(path)
    assert again.hu.dtype == dtype
    np.testing.assert_array_equal(again.hu, volume.hu)
    np.testing.assert_allclose(again.to_world, volume.to_world, atol=1e-4)
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), volume.hu)
    for index in ((0, 0, 0), (4, 5, 6), (1, 4, 2)):
        place = image.TransformIndexToPhysicalPoint(index[::-1])
        np.testing.assert_allclose(place, volume.position_mm(np.array(index)), atol=1e-3)
