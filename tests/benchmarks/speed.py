"""What the fast form of a network gains, side by side in one run.

    python tests/benchmarks/speed.py [--model octahedral] [--patches 128]

Each round times all forms in turn; the ratio of a round is to the first form of the same round, and the
median ratio is printed with its range, so that a machine that drifts does not decide.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from timing import in_turn

from gcnn_cli.network.devices import choose_device
from gcnn_cli.network.inference import make_scorer
from gcnn_cli.network.weights import load_model

ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="octahedral")
    parser.add_argument("--patches", type=int, default=128)
    arguments = parser.parse_args()
    network = load_model(arguments.model).network
    cpu = choose_device("cpu")
    batches = torch.randn(arguments.patches, 1, *network.config.sides).split(32)

    @torch.inference_mode()
    def as_trained() -> None:
        for batch in batches:
            network(batch)

    forms: dict[str, Callable[[], object]] = {
        "as trained, float32": as_trained,
        "folded, float32": lambda: make_scorer(network, cpu, bfloat16=False).score(batches),
        "folded, bfloat16": lambda: make_scorer(network, cpu, bfloat16=True).score(batches),
    }
    times = in_turn(forms.values(), ROUNDS)
    ratios = times[:, :1] / times
    print(f"{arguments.patches} patches, {torch.get_num_threads()} threads, {ROUNDS} rounds after one to warm up")
    print("| form | patches/s | times as fast (range) |")
    print("|---|---|---|")
    for n, name in enumerate(forms):
        rate = arguments.patches / np.median(times[:, n])
        low, high = ratios[:, n].min(), ratios[:, n].max()
        print(f"| {name} | {rate:.0f} | {np.median(ratios[:, n]):.2f} ({low:.2f}-{high:.2f}) |")


if __name__ == "__main__":
    main()
