"""What both examples share: training, accuracy over several draws, a table and its plot."""

from collections.abc import Callable
from pathlib import Path
from statistics import mean

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from gcnn_cli.symmetry import act_on_image, make_group

Draw = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]  # (number, generator) -> images, labels
Rows = dict[str, dict[int, list[float]]]  # network: training images: accuracy of each draw


def fit(network: nn.Module, images: Tensor, labels: Tensor, group_name: str, steps: int, seed: int) -> nn.Module:
    """Train on batches of 32, every image turned at random in every step: the plain network gets all turns as well."""
    generator, group = torch.Generator().manual_seed(seed), make_group(group_name)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    network.train()
    for _ in range(steps):
        chosen = torch.randint(len(images), (32,), generator=generator)
        turns = torch.randint(group.order, (32,), generator=generator)
        batch = torch.stack([act_on_image(images[n], int(g), group) for n, g in zip(chosen, turns, strict=True)])
        loss = F.cross_entropy(network(batch), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images that the network names correctly."""
    return float((network(images).argmax(dim=1) == labels).float().mean())


def compare(
    networks: dict[str, Callable[[], nn.Module]],
    draw: Draw,
    test: tuple[Tensor, Tensor],
    turned_by: str,
    counts: tuple[int, ...],
    draws: int,
    steps: int,
) -> Rows:
    """Train every network on `draws` draws of each number of images; all networks see the same images."""
    rows: Rows = {name: {count: [] for count in counts} for name in networks}
    for seed in range(draws):
        for count in counts:
            images, labels = draw(count, torch.Generator().manual_seed(seed))
            for name, make in networks.items():
                torch.manual_seed(seed)
                network = fit(make(), images, labels, turned_by, steps, seed)
                rows[name][count].append(accuracy(network, *test))
    return rows


def show(rows: Rows, networks: dict[str, Callable[[], nn.Module]], title: str, plot: Path) -> None:
    """Print the table, and the claim that it supports or does not; draw the plot."""
    counts = sorted(next(iter(rows.values())))
    print(title)
    print("| network | parameters | " + " | ".join(f"{count} images" for count in counts) + " |")
    print("|---|---|" + "---|" * len(counts))
    for name, results in rows.items():
        parameters = sum(p.numel() for p in networks[name]().parameters())
        cells = [f"{mean(results[c]):.3f} ({min(results[c]):.3f}-{max(results[c]):.3f})" for c in counts]
        print(f"| {name} | {parameters:,} | " + " | ".join(cells) + " |")
    plain, equivariant = rows
    few, many = counts[-2], counts[-1]
    print(
        f"with {few} images the {equivariant} network is right in {mean(rows[equivariant][few]):.1%} of the tests,"
        f" the {plain} one in {mean(rows[plain][few]):.1%}, and with {many} images in {mean(rows[plain][many]):.1%}"
    )
    figure = Figure((5.2, 3.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for (name, results), color in zip(rows.items(), ("#c2571a", "#0b57b0"), strict=True):
        middle = [mean(results[c]) for c in counts]
        axes.plot(counts, middle, "o-", color=color, label=name)
        axes.fill_between(
            counts, [min(results[c]) for c in counts], [max(results[c]) for c in counts], color=color, alpha=0.2, lw=0
        )
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(c) for c in counts])
    axes.minorticks_off()
    axes.set_xlabel("training images")
    axes.set_ylabel("accuracy on turned test images")
    axes.set_title(title, fontsize=10)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    plot.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(plot, metadata={"Software": None})
    print(f"plot: {plot}")
