"""Solids of four cubes in any orientation: a plain network against one of the group O, with a tenth of the data.

    pip install .
    python examples/solids.py                    (about a minute on two cores)

There are eight ways to join four cubes by their faces. Two of them are mirror images of each other, a left and a right
screw. Turning never makes one of the other, so O, the group of rotations, is right for this task. Oh, which has
the mirrors too, could not tell them apart: `--oh` shows it.
"""

import argparse
from pathlib import Path

import torch
from learning import compare, show
from torch import Tensor, nn

from gcnn_cli.symmetry import FieldNorm, GroupConv, GroupPool, LiftingConv, MaxPool, act_on_image, make_group

SIDE, CUBE, NOISE = 12, 2, 0.1
SOLIDS = (  # (z, y, x) of the cubes
    ((0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 0, 3)),
    ((0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0)),
    ((0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 1)),
    ((0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)),
    ((0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 2)),
    ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)),
    ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 1)),  # a screw
    ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 1, 0)),  # its mirror image
)


def network(group_name: str, fields: int) -> nn.Module:
    """Images [B, 1, 12, 12, 12] -> logits [B, 8], the same for a solid in every orientation of the group."""
    group = make_group(group_name)
    return nn.Sequential(
        LiftingConv(group, 1, fields),
        FieldNorm(group, fields),
        nn.ReLU(),
        MaxPool(group),
        GroupConv(group, fields, fields),
        FieldNorm(group, fields),
        nn.ReLU(),
        GroupConv(group, fields, 2 * fields, side=SIDE // 2, pad=False),  # a weight for every place of the map
        FieldNorm(group, 2 * fields),
        nn.ReLU(),
        GroupPool(group),
        nn.Flatten(),
        nn.Linear(2 * fields, len(SOLIDS)),
    )


def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return solids [count, 1, 12, 12, 12] near the middle, in random orientations, in noise; and their labels."""
    group = make_group("O")
    labels = torch.arange(count) % len(SOLIDS)
    images = torch.zeros(count, 1, SIDE, SIDE, SIDE)
    for n, label in enumerate(labels.tolist()):
        corners = torch.tensor(SOLIDS[label]) * CUBE
        room = SIDE - (corners.max(dim=0).values + CUBE)
        start = room // 2 + torch.randint(-1, 2, (3,), generator=generator)
        for z, y, x in (corners + start).tolist():
            images[n, 0, z : z + CUBE, y : y + CUBE, x : x + CUBE] = 1
        g = int(torch.randint(group.order, (), generator=generator))
        images[n] = act_on_image(images[n].clone(), g, group)
    return images + NOISE * torch.randn(images.shape, generator=generator), labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot", type=Path, default=Path("solids.png"))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--oh", action="store_true", help="the group Oh in place of O: the screws look alike to it")
    arguments = parser.parse_args()
    name, fields = ("Oh", 1) if arguments.oh else ("O", 2)
    networks = {"plain": lambda: network("trivial", 10), name: lambda: network(name, fields)}
    test = draw(200, torch.Generator().manual_seed(10_000))
    rows = compare(networks, draw, test, "O", (40, 400), arguments.draws, arguments.steps)
    show(rows, networks, "Solids of four cubes in 24 orientations", arguments.plot)


if __name__ == "__main__":
    main()
