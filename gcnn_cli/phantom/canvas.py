"""The drawing grid: coordinates in mm, and soft-edged shapes drawn on it.

Anatomical frame: millimeters from the middle of the chest, x to the patient's left, y to the back,
z to the head: LPS, moved. A shape is a signed distance d in mm, negative inside; `cover` turns it
into the share of each voxel that it fills, by a ramp one voxel wide. Slices are drawn as thinner
subslices and averaged: that is the partial volume effect of a thick slice.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
Point = NDArray[np.float64]  # (x, y, z) mm

WIDTH_MM, DEPTH_MM, HEIGHT_MM = 325.0, 250.0, 220.0
FRONT_MM = -113.0  # y of the field of view's front edge
CENTER_LPS_MM = (3.5, -181.0, 1204.0)  # where the scanner says that the middle of the chest lies

_MAX_SUBSLICE_MM = 1.3


@dataclass(frozen=True, eq=False)
class SubsliceGrid:
    """Voxel centers of the subslices: z [D,1,1], y [1,H,1], x [1,1,W] in mm; `sub` subslices a slice."""

    z: Field
    y: Field
    x: Field
    pixel_mm: float
    step_mm: float  # between subslices
    sub: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.z.size, self.y.size, self.x.size

    def box(self, low: Point, high: Point) -> tuple[slice, slice, slice]:
        """Return the index ranges (z, y, x) of the voxels between two corners (x, y, z)."""
        slices = []
        for axis, step, a, b in zip(
            (self.z, self.y, self.x), (self.step_mm, self.pixel_mm, self.pixel_mm), low[::-1], high[::-1], strict=True
        ):
            first = float(axis.flat[0])
            slices.append(
                slice(max(0, math.ceil((a - first) / step)), min(axis.size, max(0, math.floor((b - first) / step) + 1)))
            )
        return slices[0], slices[1], slices[2]

    def average(self, values: Field) -> Field:
        """Average subslices [D·sub, H, W] to slices [D, H, W]."""
        depth, height, width = values.shape
        return np.asarray(values.reshape(depth // self.sub, self.sub, height, width).mean(axis=1), np.float32)

    def cover(self, distance: Any) -> Field:
        """Convert a signed distance in mm to the share of the voxel inside, 0 to 1."""
        return np.asarray(np.clip(0.5 - distance / self.pixel_mm, 0, 1), np.float32)


def make_grid(slice_mm: float, pixel_mm: float) -> SubsliceGrid:
    sub = math.ceil(slice_mm / _MAX_SUBSLICE_MM)
    step = slice_mm / sub
    depth, height, width = (
        round(HEIGHT_MM / slice_mm) * sub,
        round(DEPTH_MM / pixel_mm),
        round(WIDTH_MM / pixel_mm),
    )
    z = (np.arange(depth) - (depth - 1) / 2) * step
    y = FRONT_MM + (np.arange(height) + 0.5) * pixel_mm
    x = (np.arange(width) - (width - 1) / 2) * pixel_mm
    return SubsliceGrid(
        z.astype(np.float32)[:, None, None],
        y.astype(np.float32)[None, :, None],
        x.astype(np.float32)[None, None, :],
        pixel_mm,
        step,
        sub,
    )


def paint(canvas: Field, share: Any, value: Any) -> None:
    """Paint the value over the canvas, in place, mixed in by the share."""
    canvas += share * (value - canvas)


def superellipse(x: Any, y: Any, half_x: Any, half_y: Any, power: float) -> Any:
    """Return about the signed distance to |x/a|^p + |y/b|^p = 1."""
    u, v = np.abs(x) / half_x, np.abs(y) / half_y
    radius = np.maximum((u**power + v**power) ** (1 / power), 0.05)
    slope = np.hypot((u / radius) ** (power - 1) / half_x, (v / radius) ** (power - 1) / half_y)
    return (radius - 1) / np.maximum(slope, 1e-6)


def ellipsoid(grid: SubsliceGrid, center: tuple[float, ...], radii: tuple[float, ...], tilt: float = 0.0) -> Any:
    """Return about the signed distance to an ellipsoid; tilt in degrees turns it about z, from left to back."""
    cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    dx, dy, dz = grid.x - center[0], grid.y - center[1], grid.z - center[2]
    u, v, w = (cos * dx + sin * dy) / radii[0], (cos * dy - sin * dx) / radii[1], dz / radii[2]
    radius = np.sqrt(u * u + v * v + w * w)
    slope = np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + (w / radii[2]) ** 2)
    return (radius - 1) * radius / np.maximum(slope, 1e-3)


def both(a: Any, b: Any, round_mm: float) -> Any:
    """Intersect two signed distances (their maximum) with a rounded edge."""
    h = np.clip(0.5 + (a - b) / (2 * round_mm), 0, 1)
    return b + h * (a - b) + round_mm * h * (1 - h)


def either(a: Any, b: Any, round_mm: float) -> Any:
    """Unite two signed distances (their minimum) with a rounded groove."""
    return -both(-a, -b, round_mm)


def tube_distance(grid: SubsliceGrid, points: Any, radii: Any) -> Field:
    """Return the signed distance, cut off at 8 mm, to a tube through points [N, 3] with a radius at each."""
    points, radii = np.asarray(points, float), np.asarray(radii, float)
    field = np.full(grid.shape, 8.0, np.float32)
    for p, q, r, s in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
        box = grid.box(np.minimum(p, q) - max(r, s) - 8, np.maximum(p, q) + max(r, s) + 8)
        distance, radius = _to_axis(grid, box, p, q, r, s)
        np.minimum(field[box], distance - radius, out=field[box])
    return field


def draw_tube(grid: SubsliceGrid, canvas: Field, p: Point, q: Point, r: float, s: float) -> None:
    """Raise a canvas of shares, in place, to the cover of a tube from p (radius r) to q (radius s).

    A tube thinner than a voxel is drawn one voxel wide and fainter, so that its cross-section keeps
    its weight, as in a scanner.
    """
    blur = 0.55 * max(grid.pixel_mm, grid.step_mm)
    margin = max(r, s, blur) + grid.pixel_mm
    box = grid.box(np.minimum(p, q) - margin, np.maximum(p, q) + margin)
    if any(b.start >= b.stop for b in box):
        return
    distance, radius = _to_axis(grid, box, p, q, r, s)
    drawn = np.maximum(radius, blur)
    share = (radius / drawn) ** 2 * np.clip(0.5 + (drawn - distance) / grid.pixel_mm, 0, 1)
    np.maximum(canvas[box], share, out=canvas[box])


def _to_axis(
    grid: SubsliceGrid, box: tuple[slice, slice, slice], p: Point, q: Point, r: float, s: float
) -> tuple[Any, Any]:
    dz, dy, dx = grid.z[box[0]] - p[2], grid.y[:, box[1]] - p[1], grid.x[:, :, box[2]] - p[0]
    axis = q - p
    along = (dx * axis[0] + dy * axis[1] + dz * axis[2]) / max(float(axis @ axis), 1e-9)
    along = np.clip(along, 0, 1)
    distance = np.sqrt((dx - along * axis[0]) ** 2 + (dy - along * axis[1]) ** 2 + (dz - along * axis[2]) ** 2)
    return distance, r + along * (s - r)
