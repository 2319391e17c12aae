"""Everything that a first hour with a GPU needs, in one JSON file and as Markdown tables.

    python tests/benchmarks/gpu.py [--out gpu.json] [--device cuda] [--parts scores,throughput] [--overwrite]
    python tests/benchmarks/gpu.py --committee DATA [--recipe models/committee.toml] [--steps 100]
    python tests/benchmarks/gpu.py --small                                  (without a GPU: every part, in small)

scores      of candidates of a scan and of random patches, against those of the CPU in float32
findings    of a whole detection, against those of the CPU in float32
throughput  of the network, by precision and patches per batch
scans       whole scans per hour, and ways to bring patches to the device
training    patches per second, and the share of the time that goes into making the batches on the CPU
committee   `gcnn train` of every fold and `gcnn combine`, on labeled data; only with --committee

The file is written again after each part: a machine that is taken away leaves what was measured.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from gpu_committee import train_committee
from gpu_parts import FULL, PARTS, SMALL, Bench, Rows, peak_gb

from gcnn_cli.errors import GcnnError
from gcnn_cli.files import check_not_existing, write_bytes
from gcnn_cli.network.devices import choose_device, precision_name
from gcnn_cli.network.system import describe_system
from gcnn_cli.network.weights import load_model, models_folder
from gcnn_cli.phantom.sample import sample_folder
from gcnn_cli.training.recipe import read_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", default="octahedral")
    parser.add_argument("--scan", type=Path, default=sample_folder() / "thorax.mhd")
    parser.add_argument("--small", action="store_true", help="a few patches, scans and steps")
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated list (default: all)")
    parser.add_argument("--recipe", type=Path, default=models_folder() / "committee.toml")
    parser.add_argument("--committee", type=Path, metavar="DATA", help="train a committee on this labeled data, too")
    parser.add_argument("--steps", type=int, help="of each of its networks (default: the recipe's)")
    arguments = parser.parse_args()
    parts = [part for part in arguments.parts.split(",") if part]
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"unknown part {unknown[0]!r}: choose from {', '.join(PARTS)}")
    try:
        check_not_existing([arguments.out], overwrite=arguments.overwrite)
        measure(arguments, parts)
    except GcnnError as error:
        sys.exit(f"error: {error}")


def measure(arguments: argparse.Namespace, parts: list[str]) -> None:
    """Measure one part after the other. After each, print its table and write everything so far."""
    device = choose_device(arguments.device)
    sizes = SMALL if arguments.small else FULL
    recipe = read_recipe(arguments.recipe)
    bench = Bench(device, load_model(arguments.model), arguments.scan, recipe, sizes)
    found: dict[str, Any] = {
        "command": shlex.join(["python", "tests/benchmarks/gpu.py", *sys.argv[1:]]),
        "machine": {row["what"]: row["value"] for row in describe_system()},
        "device": str(device),
        "precision": precision_name(device),
        "cuda": torch.version.cuda or "",
        "weights": {"name": bench.model.name, "sha256": bench.model.sha256},
        "small": arguments.small,
        "complete": False,
    }
    name = found["machine"].get(f"device {torch.device(device.type, device.index or 0)}", str(device))
    print(f"{name}; weights {bench.model.name}; PyTorch {torch.__version__}")
    measurements = {part: lambda part=part: PARTS[part](bench) for part in parts}
    if arguments.committee:
        measurements["committee"] = lambda: train_committee(
            arguments.committee, arguments.recipe, recipe.split.folds, device, arguments.steps
        )
    for part, rows_of in measurements.items():
        found[part] = rows_of()
        peaks = [row.get("largest memory, GB", 0.0) for row in found[part]]
        found["largest memory, GB"] = max(found.get("largest memory, GB", 0.0), peak_gb(device), *peaks)
        found["complete"] = part == list(measurements)[-1]
        write_bytes(arguments.out, (json.dumps(found, indent=2) + "\n").encode(), overwrite=True)
        print_table(part, found[part])


def print_table(part: str, rows: Rows) -> None:
    """As Markdown."""
    print(f"\n### {part.capitalize()}\n\n| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
    for row in rows:
        print(f"| {' | '.join(text_of(value) for value in row.values())} |", flush=True)


def text_of(value: object) -> str:
    """Three digits of a number, and a range as low-high."""
    if isinstance(value, list):
        return "-".join(map(text_of, value))
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
