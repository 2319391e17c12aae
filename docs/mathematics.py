"""Draw the pictures of docs/layers.md with the project's own layers: what is shown is what is computed.

python docs/mathematics.py                   (writes docs/img/layers-*.png)
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from gcnn_cli.symmetry import GroupConv, LiftingConv, act_on_features, act_on_image, make_group, rotate

FOLDER = Path(__file__).with_name("img")
BLUE, RED, GRAY = "#0b57b0", "#b3261e", "#565f6a"
F_SHAPE = np.array([[0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 0], [0, 1, 0, 0, 0, 0], [0, 1, 1, 1, 0, 0], [0, 1, 0, 0, 0, 0],
                    [0, 1, 0, 0, 0, 0]])  # fmt: skip


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, draw in (("orbit", orbit), ("kernel", kernel), ("law", law), ("stride", stride), ("axes", unequal_axes)):
        path = FOLDER / f"layers-{name}.png"
        draw().savefig(path, dpi=130, metadata={"Software": None})
        print(path)


def orbit() -> Figure:
    """A letter under the eight elements of p4m."""
    group, letter = make_group("p4m"), torch.from_numpy(F_SHAPE).float()
    figure = Figure((8, 1.5), layout="constrained")
    for g, axes in enumerate(figure.subplots(1, group.order)):
        matrix = group.matrices[g].tolist()
        picture(axes, act_on_image(letter, g, group), f"g{g}\n{matrix[0]}\n{matrix[1]}", "Greys")
    return figure


def kernel() -> Figure:
    """A lifting kernel and a group kernel of p4, expanded: what an ordinary convolution then computes with."""
    torch.manual_seed(3)
    group = make_group("p4")
    lifting, inner = LiftingConv(group, 1, 1), GroupConv(group, 1, 1)
    figure = Figure((7.2, 4.4), layout="constrained")
    grid = figure.subplots(1 + group.order, 1 + group.order)
    for row in range(1, 1 + group.order):
        for h in range(group.order):
            values = inner.expanded_weight()[row - 1, h]
            picture(grid[row, 1 + h], values, f"h{h}" if row == 1 else "", "RdBu", 1.0)
        grid[row, 0].axis("off")
        grid[row, 0].text(
            0.5, 0.5, f"for output g{row - 1}:\n$w(g^{{-1}}h, g^{{-1}}u)$", ha="center", va="center", size=8
        )
    grid[0, 0].axis("off")
    grid[0, 0].text(0.5, 0.5, "lifting:\n$w(g^{-1}u)$", ha="center", va="center", size=8)
    for g in range(group.order):
        picture(grid[0, 1 + g], lifting.expanded_weight()[g, 0], f"g{g}", "RdBu", 1.5)
    return figure


def law() -> Figure:
    """Convolve and turn, or turn and convolve: the same map, its copies permuted."""
    torch.manual_seed(1)
    group, g = make_group("p4"), 1
    image = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    image[0, 0, 1:7, 1:7] = torch.from_numpy(F_SHAPE)
    layer = LiftingConv(group, 1, 1).double()
    with torch.no_grad():
        features = layer(image)
        turned = act_on_image(image, g, group)
        first, second = layer(turned), act_on_features(features, g, group)
    figure = Figure((8.6, 4.6), layout="constrained")
    grid = figure.subplots(3, 1 + group.order)
    rows = (
        (image, features, "f", "conv(f), one copy for each h"),
        (turned, first, "L f", "conv(L f)"),
        (turned, second, "L f", "L conv(f): turned, and the copies permuted"),
    )
    for row, (left, right, name, title) in zip(grid, rows, strict=True):
        picture(row[0], left[0, 0], name, "Greys")
        for h in range(group.order):
            picture(row[1 + h], right[0, 0, h], "", "RdBu", float(features.abs().max()))
            if h == 0:
                row[1].set_title(title, loc="left", size=9)
    error = float((first - second).abs().max() / second.abs().max())
    figure.suptitle(f"The law: the second and the third row are the same map (largest difference {error:.0e})", size=10)
    return figure


def stride() -> Figure:
    """Windows that begin and end with the grid, and windows that leave out one voxel on one side."""
    figure = Figure((8, 2.5), layout="constrained")
    cases = (
        (6, 2, 2, "blocks of 2 on 6 voxels: symmetric", BLUE),
        (7, 3, 2, "kernel 3, stride 2 on 7 voxels: symmetric", BLUE),
        (
            6,
            3,
            2,
            "kernel 3, stride 2 on 6 voxels:\none is lost on one side only: refused",
            RED,
        ),
    )
    for axes, (length, side, step, title, color) in zip(figure.subplots(1, 3), cases, strict=True):
        for n in range(length):
            axes.add_patch(rectangle(n, 0, 1, 1, "#e8eaed"))
        for row, start in enumerate(range(0, length - side + 1, step)):
            axes.add_patch(rectangle(start + 0.08, 1.4 + row * 0.9, side - 0.16, 0.6, color))
        axes.set_xlim(-0.2, 7.2)
        axes.set_ylim(-0.2, 4.4)
        axes.set_title(title, size=8)
        axes.set_aspect("equal")
        axes.axis("off")
    return figure


def unequal_axes() -> Figure:
    """A box of 2 x 4 x 4 voxels under a quarter turn about z, which it survives, and one about x."""
    box = torch.zeros(2, 4, 4)
    box[0, 0, :] = box[:, 0, 0] = box[1, 3, 3] = 1
    figure = Figure((8, 2.7), layout="constrained")
    quarters = {
        "the box": np.eye(3, dtype=np.int8),
        "a quarter turn about z\n(C4, C4h, D4, D4h, O, Oh)": np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], np.int8),
        "a quarter turn about x (O, Oh):\nanother box": np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]], np.int8),
    }
    cube = torch.zeros(4, 4, 4)  # room for every turn; 2 marks the box
    cube[1:3] = box + 1
    for n, (title, matrix) in enumerate(quarters.items()):
        axes = figure.add_subplot(1, 3, n + 1, projection="3d")
        shown = rotate(cube, matrix).numpy().transpose(2, 1, 0)  # (x, y, z) for matplotlib
        colors = np.where(shown[..., None] == 2, np.array([0.04, 0.34, 0.69, 1.0]), np.array([0.8, 0.82, 0.85, 0.35]))
        axes.voxels(shown > 0, facecolors=colors, edgecolor="#7a828c", linewidth=0.3)
        axes.set_title(title, size=8, color=RED if n == 2 else "black")
        axes.set_axis_off()
        axes.set(xlim=(0, 4), ylim=(0, 4), zlim=(0, 4))
        axes.set_box_aspect((1, 1, 1))
    return figure


def picture(axes: Axes, values: Tensor, title: str, colors: str, limit: float | None = None) -> None:
    """Draw values as a picture without axes; with a limit the colors are symmetric about zero."""
    shown = values.detach().numpy()
    low, high = (-limit, limit) if limit else (0, 1)
    axes.imshow(shown, cmap=colors, vmin=low, vmax=high, interpolation="nearest")
    axes.set_title(title, size=8)
    axes.set_xticks([])
    axes.set_yticks([])


def rectangle(x: float, y: float, width: float, height: float, color: str) -> Rectangle:
    return Rectangle((x, y), width, height, facecolor=color, edgecolor="white")


if __name__ == "__main__":
    main()
