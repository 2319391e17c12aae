"""The layers against escnn's, on copied kernels: where both have the same layer, both must compute the same.

    python tests/benchmarks/escnn_layers.py              (escnn needs numpy<2; it brings no other torch)

An escnn convolution with random coefficients is expanded to the ordinary kernel that it computes with. The rows of the
identity become the kernel of our layer, which expands the others from it. escnn has its own order of elements and its
own axes; both are found among the 48 signed permutations, by the kernels alone. The table gives the largest difference
of all expanded kernels and of the results on random maps, relative to the largest value, in float64.
"""

from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np
import torch
from escnn import gspaces
from escnn import nn as enn
from escnn.group import _numerical
from torch import Tensor, nn

from gcnn_cli.symmetry import FieldNorm, GroupConv, GroupPool, LiftingConv, MaxPool, MeanPool, make_group
from gcnn_cli.symmetry.groups import Group

FIELDS_IN, FIELDS_OUT, SIDE = 2, 3, 3
OPTIONS: dict[str, dict[str, Any]] = {
    "padded": {"pad": True},
    "not padded": {"pad": False},
    "stride 2": {"pad": True, "stride": 2},
    "dilation 2": {"pad": True, "dilation": 2},
    "circular padding": {"pad": True, "padding_mode": "circular"},
}


@dataclass(frozen=True)
class Space:
    """A group of ours and the same group of escnn's, acting on the plane or on space."""

    group: Group
    theirs: Any  # a gspace
    conv: Any
    matrices: list[np.ndarray[Any, Any]]  # of escnn's elements, in its order

    @property
    def fields(self) -> Any:
        return self.theirs.regular_repr


def spaces() -> list[Space]:
    flat, octa = gspaces.flipRot2dOnR2(4), gspaces.octaOnR3()
    standard = flat.fibergroup.irrep(1, 1)
    return [
        Space(make_group("p4m"), flat, enn.R2Conv, [standard(e) for e in flat.fibergroup.elements]),
        Space(make_group("O"), octa, enn.R3Conv, [e.to("MAT") for e in octa.fibergroup.elements]),
    ]


def main() -> None:
    _numerical.randomized_svd = None  # scikit-learn's refuses the matrices of escnn, which then takes SciPy's
    torch.manual_seed(0)
    print("| layer | group | options | kernels | results |\n|---|---|---|---|---|")
    for space in spaces():
        orders = element_orders(space)
        for lifting in (True, False):
            for name, options in OPTIONS.items():
                kernels, results = compare_convolutions(space, orders, lifting, options)
                layer = "LiftingConv" if lifting else "GroupConv"
                print(f"| {layer} | {space.group.name} | {name} | {kernels:.0e} | {results:.0e} |", flush=True)
        for name, error in compare_others(space).items():
            print(f"| {name} | {space.group.name} | | | {error:.0e} |", flush=True)


def element_orders(space: Space) -> list[list[int]]:
    """For each choice of escnn's axes, our number of each of its elements."""
    own = {matrix.tobytes(): g for g, matrix in enumerate(space.group.matrices)}
    dimension, orders = space.group.dimension, []
    for order in permutations(range(dimension)):
        for signs in product((1, -1), repeat=dimension):
            axes = np.eye(dimension)[list(order)] * np.array(signs)[:, None]
            turned = [np.round(axes @ m @ axes.T).astype(np.int8) for m in space.matrices]
            found = [own.get(np.ascontiguousarray(m).tobytes()) for m in turned]
            if None not in found:
                orders.append([int(g) for g in found if g is not None])
    return orders


def compare_convolutions(
    space: Space, orders: list[list[int]], lifting: bool, options: dict[str, Any]
) -> tuple[float, float]:
    """Return the largest differences of kernels and results, for the axes on which the kernels agree best."""
    group, theirs = space.group, space.theirs
    fields_in, copies = (1, 1) if lifting else (FIELDS_IN, group.order)
    given = enn.FieldType(theirs, [theirs.trivial_repr if lifting else space.fields] * fields_in)
    made = enn.FieldType(theirs, [space.fields] * FIELDS_OUT)
    stated = {k: v for k, v in options.items() if k != "pad"}
    padding = options.get("dilation", 1) * (SIDE // 2) if options["pad"] else 0
    conv = space.conv(given, made, SIDE, padding=padding, bias=True, **stated).double()
    nn.init.normal_(conv.weights)
    full = conv.expand_parameters()[0].detach()
    full = full.unflatten(0, (FIELDS_OUT, group.order)).unflatten(2, (fields_in, copies))
    best = (float("inf"), float("inf"))
    x = torch.randn(2, fields_in, copies, *(7,) * group.dimension, dtype=torch.float64)
    for order in orders:
        place = torch.tensor(order).argsort()  # ours -> theirs
        sorted_full = full[:, place] if lifting else full[:, place][:, :, :, place]
        layer = (
            LiftingConv(group, 1, FIELDS_OUT, SIDE, **options)
            if lifting
            else GroupConv(group, FIELDS_IN, FIELDS_OUT, SIDE, **options)
        ).double()
        with torch.no_grad():
            layer.weight.copy_(sorted_full[:, 0])
            bias = conv.expand_parameters()[1]
            layer.bias.copy_(torch.zeros(()) if bias is None else bias.view(FIELDS_OUT, -1)[:, 0])
            kernels = relative(layer.expanded_weight(), sorted_full.flatten(2, 3).flatten(0, 1))
            if kernels >= best[0]:
                continue
            ours = layer(x[:, :, 0] if lifting else x)
            shuffled = x if lifting else x[:, :, order]
            other = conv.eval()(enn.GeometricTensor(shuffled.flatten(1, 2), given)).tensor
            best = (kernels, relative(ours, other.unflatten(1, (FIELDS_OUT, group.order))[:, :, place]))
    return best


def compare_others(space: Space) -> dict[str, float]:
    """Return the largest differences of norms and pools; they need no kernels, and no order of elements."""
    group, dimension = space.group, space.group.dimension
    kind = enn.FieldType(space.theirs, [space.fields] * FIELDS_IN)
    x = torch.randn(3, FIELDS_IN, group.order, *(6,) * dimension, dtype=torch.float64)
    norm, pool, mean = (
        (enn.IIDBatchNorm2d, enn.PointwiseMaxPool2D, enn.PointwiseAvgPool2D)
        if dimension == 2
        else (enn.IIDBatchNorm3d, enn.PointwiseMaxPool3D, enn.PointwiseAvgPool3D)
    )
    pairs = {
        "FieldNorm, training": (FieldNorm(group, FIELDS_IN).train(), norm(kind).train()),
        "MaxPool": (MaxPool(group), pool(kind, 2)),
        "MeanPool": (MeanPool(group), mean(kind, 2)),
        "GroupPool": (GroupPool(group), enn.GroupPooling(kind)),
    }
    errors = {}
    for name, (ours, theirs) in pairs.items():
        y, z = ours.double()(x), theirs.double()(enn.GeometricTensor(x.flatten(1, 2), kind)).tensor
        errors[name] = relative(y, z.view_as(y))
    return errors


def relative(y: Tensor, z: Tensor) -> float:
    return float((y - z).abs().max() / z.abs().max())


if __name__ == "__main__":
    main()
