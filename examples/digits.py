"""Handwritten digits in any orientation: a plain network against one of the group p4m, with a tenth of the data.

    pip install '.[examples]'
    python examples/digits.py                    (about a minute on two cores)

The digits are scikit-learn's, 8 x 8 pixels; they need no download. Every image is turned or mirrored at random, in
training and in the test. Nines are left out: turned by 180 degrees they are sixes.
"""

import argparse
from pathlib import Path

import torch
from learning import compare, show
from sklearn.datasets import load_digits
from torch import Tensor, nn

from gcnn_cli.symmetry import FieldNorm, GroupConv, GroupPool, LiftingConv, MaxPool, act_on_image, make_group

TURNED_BY, CLASSES, SIDE = "p4m", 9, 8


def network(group_name: str, fields: int) -> nn.Module:
    """Images [B, 1, 8, 8] -> logits [B, 9], the same for an image in every orientation of the group."""
    group = make_group(group_name)
    return nn.Sequential(
        LiftingConv(group, 1, fields),
        FieldNorm(group, fields),
        nn.ReLU(),
        GroupConv(group, fields, fields),
        FieldNorm(group, fields),
        nn.ReLU(),
        MaxPool(group),
        GroupConv(group, fields, 2 * fields, side=SIDE // 2, pad=False),  # a weight for every place of the map
        FieldNorm(group, 2 * fields),
        nn.ReLU(),
        GroupPool(group),
        nn.Flatten(),
        nn.Linear(2 * fields, CLASSES),
    )


def turned_digits() -> tuple[Tensor, Tensor]:
    """Return all digits but nines, [N, 1, 8, 8] from 0 to 1 in random order and orientation, and their labels."""
    data, generator, group = load_digits(), torch.Generator().manual_seed(0), make_group(TURNED_BY)
    images, labels = torch.from_numpy(data.images).float() / 16, torch.from_numpy(data.target)
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order] != 9]
    turns = torch.randint(group.order, (len(order),), generator=generator)
    turned = [act_on_image(images[n], int(g), group) for n, g in zip(order, turns, strict=True)]
    return torch.stack(turned).unsqueeze(1), labels[order]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot", type=Path, default=Path("digits.png"))
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--draws", type=int, default=3)
    arguments = parser.parse_args()
    images, labels = turned_digits()
    test, pool = (images[:617], labels[:617]), (images[617:], labels[617:])

    def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randperm(len(pool[1]), generator=generator)[:count]
        return pool[0][chosen], pool[1][chosen]

    networks = {"plain": lambda: network("p1", 12), "p4m": lambda: network("p4m", 4)}
    rows = compare(networks, draw, test, TURNED_BY, (30, 100, 1000), arguments.draws, arguments.steps)
    show(rows, networks, "Digits in eight orientations", arguments.plot)


if __name__ == "__main__":
    main()
