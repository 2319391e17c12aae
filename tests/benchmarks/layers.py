"""A G-CNN against the plain stack of as many real channels, and against escnn, side by side in one run.

    python tests/benchmarks/layers.py [--batch 8] [--rounds 5]        (escnn needs numpy<2)
    python tests/benchmarks/layers.py --single                        (single layers, separable and flat ones too)

The plain stack has conv3d layers, batch norms, ReLUs and poolings of the network's own real channels (fields times
group order) and no symmetry: what the same arithmetic costs without any group. escnn's stack has its octahedral group
acting on R3 and regular fields of the same sizes. Each round times all of them in turn; the ratio of a round
is to the plain stack of the same round, and the median ratio is printed with its range. A single layer is compared with
PyTorch's own convolution of as many real channels.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from timing import in_turn
from torch import Tensor, nn

from gcnn_cli.network.architecture import GCNN, NetworkConfig
from gcnn_cli.network.devices import has_fast_bfloat16
from gcnn_cli.network.inference import FoldedGCNN
from gcnn_cli.symmetry import GroupConv, SeparableGroupConv, make_group

CONFIG = NetworkConfig()
ORDER = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--single", action="store_true", help="time single layers instead of whole networks")
    arguments = parser.parse_args()
    if arguments.single:
        print("| what | precision | form | maps/s | time to the plain convolution's (range) |\n|---|---|---|---|---|")
        for what, forms in single_layers().items():
            print_rows(what, "float32", forms, arguments.rounds, _MAPS)
        return
    patches = torch.randn(arguments.batch, 1, *(CONFIG.side,) * 3)
    fast = has_fast_bfloat16(torch.device("cpu"))
    print(
        f"{arguments.batch} patches of {CONFIG.side}^3, {torch.get_num_threads()} threads, {arguments.rounds} rounds\n"
    )
    print("| what | precision | form | patches/s | time to the plain stack's (range) |\n|---|---|---|---|---|")
    for what, bfloat16 in (
        ("inference", False),
        ("inference", fast),
        ("training step", False),
        ("training step", fast),
    ):
        forms = inference_forms(patches, bfloat16) if what == "inference" else training_forms(patches, bfloat16)
        print_rows(what, "bfloat16" if bfloat16 else "float32", forms, arguments.rounds, len(patches))


_MAPS = 2
# name: (group, fields, kernel, grid)
SINGLE = {
    "4 fields of O, 16^3": ("O", 4, 3, (16, 16, 16)),
    "8 fields of D4h, 6x24x24": ("D4h", 8, 3, (6, 24, 24)),
    "8 fields of D4h, 6x24x24, kernel 1x3x3": ("D4h", 8, (1, 3, 3), (6, 24, 24)),
}


def single_layers() -> dict[str, dict[str, Callable[[], object]]]:
    """Forward and backward of one layer: the plain convolution, the full and the separable one."""
    rows = {}
    for what, (name, fields, kernel, grid) in SINGLE.items():
        group = make_group(name)
        channels = fields * group.order
        x = torch.randn(_MAPS, channels, *grid).to(memory_format=torch.channels_last_3d)
        plain = nn.Conv3d(channels, channels, kernel, padding="same").to(memory_format=torch.channels_last_3d)
        forms = {"plain convolution": step_of(plain, x)}
        for layer in (GroupConv, SeparableGroupConv):
            forms[layer.__name__] = step_of(layer(group, fields, fields, kernel), x.unflatten(1, (fields, group.order)))
        rows[what] = forms
    return rows


def step_of(layer: nn.Module, x: Tensor) -> Callable[[], object]:
    def call() -> None:
        layer(x.detach().requires_grad_(True)).square().mean().backward()
        layer.zero_grad(set_to_none=True)

    return call


def plain_stack() -> nn.Module:
    """The network's real channels, without its symmetry."""
    layers: list[nn.Module] = []
    channels = 1
    for number, fields in enumerate(CONFIG.fields, start=1):
        layers += [nn.Conv3d(channels, fields * ORDER, 3, padding=1), nn.BatchNorm3d(fields * ORDER), nn.ReLU()]
        layers += [nn.MaxPool3d(2)] if number in CONFIG.pool_after else []
        channels = fields * ORDER
    head = CONFIG.head_fields * ORDER
    layers += [nn.Conv3d(channels, head, CONFIG.map_sides[0]), nn.BatchNorm3d(head), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(head, 1))


def folded_stack(stack: nn.Module) -> nn.Module:
    """The plain stack with its norms folded into the convolutions, as FoldedGCNN does."""
    layers = list(stack.eval().children())
    folded: list[nn.Module] = []
    for layer, after in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(layer, nn.Conv3d) and isinstance(after, nn.BatchNorm3d):
            folded.append(torch.nn.utils.fuse_conv_bn_eval(layer, after))
        elif not isinstance(layer, nn.BatchNorm3d):
            folded.append(layer)
    return nn.Sequential(*folded).to(memory_format=torch.channels_last_3d)


def inference_forms(patches: Tensor, bfloat16: bool) -> dict[str, Callable[[], object]]:
    """The shipped form and the plain stack, both with folded norms."""
    moved = patches.contiguous(memory_format=torch.channels_last_3d)

    def of(network: nn.Module) -> Callable[[], object]:
        @torch.inference_mode()
        def call() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                network(moved)

        return call

    return {"plain stack": of(folded_stack(plain_stack())), "gcnn, O": of(FoldedGCNN(GCNN(CONFIG).eval()).eval())}


def training_forms(patches: Tensor, bfloat16: bool) -> dict[str, Callable[[], object]]:
    """Forward and backward; escnn in float32, where it is installed."""

    def of(network: nn.Module, x: object, last: Callable[[object], Tensor]) -> Callable[[], object]:
        network.train()

        def call() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                y = last(network(x))
            y.float().square().mean().backward()
            network.zero_grad(set_to_none=True)

        return call

    moved = patches.contiguous(memory_format=torch.channels_last_3d)
    forms = {
        "plain stack": of(plain_stack().to(memory_format=torch.channels_last_3d), moved, lambda y: y),
        "gcnn, O": of(GCNN(CONFIG), moved, lambda y: y),
    }
    if not bfloat16 and (made := escnn_stack(patches)):
        forms["escnn, O"] = of(*made, lambda y: y.tensor)
    return forms


def escnn_stack(patches: Tensor) -> tuple[nn.Module, object] | None:
    """escnn's convolutions with regular fields of the same sizes, norms and ReLUs, and their input."""
    try:
        from escnn import gspaces
        from escnn import nn as enn
    except ImportError:
        return None
    space = gspaces.octaOnR3()
    kind = enn.FieldType(space, [space.trivial_repr])
    given = enn.GeometricTensor(patches, kind)
    layers = []
    for number, fields in enumerate(CONFIG.fields, start=1):
        out = enn.FieldType(space, fields * [space.regular_repr])
        layers += [enn.R3Conv(kind, out, 3, padding=1), enn.IIDBatchNorm3d(out), enn.ReLU(out)]
        layers += [enn.PointwiseMaxPool3D(out, 2)] if number in CONFIG.pool_after else []
        kind = out
    last = enn.FieldType(space, CONFIG.head_fields * [space.regular_repr])
    layers += [
        enn.R3Conv(kind, last, CONFIG.map_sides[0]),
        enn.IIDBatchNorm3d(last),
        enn.ReLU(last),
        enn.GroupPooling(last),
    ]
    return enn.SequentialModule(*layers), given


def print_rows(what: str, precision: str, forms: dict[str, Callable[[], object]], rounds: int, patches: int) -> None:
    """One row for each form."""
    times = in_turn(forms.values(), rounds)
    ratios = times / times[:, :1]
    for n, name in enumerate(forms):
        spread = f"{np.median(ratios[:, n]):.2f} ({ratios[:, n].min():.2f}-{ratios[:, n].max():.2f})"
        print(f"| {what} | {precision} | {name} | {patches / np.median(times[:, n]):.0f} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
