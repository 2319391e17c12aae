"""Two scans of one patient -> the map between their places, from the lungs alone.

Three steps on a grid of 3 mm: the lungs' centers of mass are laid on each other; a rigid transform brings the lungs'
voxels to agree; from there an affine one, since no two breaths are equally deep. Only voxels in and around the lungs
count, so that arms, table and field of view do not. HU are clipped to air and soft tissue.

What is left after an affine map is the lungs' own bending, largest at the diaphragm: nodules are matched within about
a centimeter (`matching`), and not by the map alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from gcnn_cli.errors import InputError
from gcnn_cli.scan.resample import as_image, resample, resample_mask
from gcnn_cli.scan.volume import Array, Volume

_GRID_MM = 3.0
_AROUND_MM = 6.0  # voxels this far outside the lungs count: the walls say where the lungs end
_HU = (-1000.0, 100.0)
_SHRINK, _SMOOTH_MM = [2, 1], [4.0, 2.0]
_STEPS = 80
_STRETCH = (0.6, 1.7)  # share of volume that a breath can change; beyond, the affine step has failed
_LEAST_OVERLAP = 0.75


@dataclass(frozen=True, eq=False)
class Alignment:
    """The map from places in the current scan to the same places in the prior one.

    matrix:    float64 [4, 4], (x, y, z, 1) LPS mm of the current scan -> (x, y, z, 1) LPS mm of the prior one
    overlap:   Dice of the two lungs, laid on each other, where both scans show them
    affine:    False if only the rigid step could be used
    in_common: share of each scan's lungs that the other scan shows, the smaller of the two
    """

    matrix: Array
    overlap: float
    affine: bool = True
    in_common: float = 1.0

    def to_prior(self, positions_mm: Array) -> Array:
        """Return the places [..., 3] in the prior scan of places in the current one."""
        return _mapped(self.matrix, positions_mm)

    def to_current(self, positions_mm: Array) -> Array:
        """Return the places [..., 3] in the current scan of places in the prior one."""
        return _mapped(np.asarray(np.linalg.inv(self.matrix), float), positions_mm)


def align(prior: Volume, prior_lungs: Volume, current: Volume, current_lungs: Volume) -> Alignment:
    """Lay two scans on each other. The lungs are masks with values above 0 inside, on any grid.

    Raises InputError where the lungs cannot be brought to overlap: these are not two scans of one patient, or one
    shows too little of the lungs.
    """
    fixed, moving = (resample(scan, _GRID_MM) for scan in (current, prior))
    inside = [resample_mask(lungs, grid) for lungs, grid in ((current_lungs, fixed), (prior_lungs, moving))]
    first = _centers(fixed, inside[0], moving, inside[1])
    rigid = _optimized(fixed, inside[0], moving, first, sitk.Euler3DTransform(), step_mm=2.0)
    affine = _optimized(fixed, inside[0], moving, rigid, sitk.AffineTransform(3), step_mm=1.0)
    stretch = float(np.linalg.det(affine[:3, :3]))
    is_sound = _STRETCH[0] < stretch < _STRETCH[1]
    matrices = (rigid, affine) if is_sound else (rigid,)
    laid = [(m, *_overlap(m, fixed, inside[0], moving, inside[1])) for m in matrices]
    matrix, overlap, in_common = max(laid, key=lambda choice: choice[1])
    if overlap < _LEAST_OVERLAP:
        raise InputError(
            f"the lungs of the two scans cannot be laid on each other (they share {100 * overlap:.0f} %, where"
            f" {100 * _LEAST_OVERLAP:.0f} % are needed): are they of one patient, and do both show most of the lungs?"
        )
    return Alignment(matrix, overlap, matrix is affine, in_common)


def _centers(fixed: Volume, fixed_lungs: NDArray[np.bool_], moving: Volume, moving_lungs: NDArray[np.bool_]) -> Array:
    """Return the shift of the lungs' centers of mass onto each other, as a matrix."""
    if not (fixed_lungs.any() and moving_lungs.any()):
        raise InputError("one of the scans shows no lung to align it by")
    centers = [
        grid.position_mm(np.array(ndimage.center_of_mass(lungs)))
        for grid, lungs in ((fixed, fixed_lungs), (moving, moving_lungs))
    ]
    made = np.eye(4)
    made[:3, 3] = centers[1] - centers[0]
    return made


def _optimized(
    fixed: Volume,
    lungs: NDArray[np.bool_],
    moving: Volume,
    start: Array,
    transform: Any,
    *,
    step_mm: float,
) -> Array:
    """Return the matrix with the least mean square difference of HU in and around the current lungs.

    transform: an Euler3DTransform or AffineTransform of ITK, which is changed
    """
    around = ndimage.binary_dilation(lungs, iterations=round(_AROUND_MM / _GRID_MM))
    mask = as_image(Volume(around.astype(np.int16), fixed.to_world))
    center = fixed.position_mm(np.array(ndimage.center_of_mass(lungs)))
    transform.SetCenter(center.tolist())
    transform.SetMatrix(start[:3, :3].ravel().tolist())
    # T(x) = A (x - c) + c + t, so that t = A c + b - c for the matrix's x -> A x + b.
    transform.SetTranslation((start[:3, :3] @ center + start[:3, 3] - center).tolist())
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMeanSquares()
    method.SetMetricFixedMask(sitk.Cast(mask, sitk.sitkUInt8))
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(step_mm, 0.01, _STEPS, relaxationFactor=0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(_SHRINK)
    method.SetSmoothingSigmasPerLevel(_SMOOTH_MM)
    method.SetInitialTransform(transform, inPlace=True)
    images = (sitk.Cast(sitk.Clamp(as_image(v), sitk.sitkFloat32, *_HU), sitk.sitkFloat32) for v in (fixed, moving))
    try:
        method.Execute(*images)
    except RuntimeError:  # the images have left each other: the start is better than nothing, and the overlap tells
        return start
    turned = np.array(transform.GetMatrix()).reshape(3, 3)
    made = np.eye(4)
    made[:3, :3] = turned
    made[:3, 3] = center + np.array(transform.GetTranslation()) - turned @ center
    return made


def _overlap(
    matrix: Array,
    fixed: Volume,
    fixed_lungs: NDArray[np.bool_],
    moving: Volume,
    moving_lungs: NDArray[np.bool_],
) -> tuple[float, float]:
    """Return Dice of the lungs where both scans show something, and the share of the lungs that both show."""
    places = fixed.position_mm(np.indices(fixed.shape).transpose(1, 2, 3, 0).astype(float))
    index = moving.index_zyx(_mapped(matrix, places))
    shown = ((index >= 0) & (index <= np.array(moving.shape) - 1)).all(axis=-1)
    there = np.zeros(fixed.shape, bool)
    there[shown] = moving_lungs[tuple(np.round(index[shown]).astype(int).T)]
    both, fixed_shown = int(there.sum()), int(fixed_lungs[shown].sum())
    dice = 2 * int((there & fixed_lungs & shown).sum()) / (both + fixed_shown) if both + fixed_shown else 0.0
    moving_shown = both * abs(float(np.linalg.det(matrix[:3, :3])))  # in voxels of the prior scan
    return dice, min(1.0, fixed_shown / int(fixed_lungs.sum()), moving_shown / int(moving_lungs.sum()))


def _mapped(matrix: Array, positions_mm: Array) -> Array:
    return np.asarray(np.asarray(positions_mm, float) @ matrix[:3, :3].T + matrix[:3, 3])
