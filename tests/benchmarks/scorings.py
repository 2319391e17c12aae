"""Other ways to compute the same scores, beside the shipped one: time, and how far the logits move.

    python tests/benchmarks/scorings.py [--model committee] [--rounds 5] [--patches 32] [--threads 2]

All forms take turns within one run, on patches of the sample scan in the parts that detection scores at once. Each
computes the mean logit of all members for the patch as it is. Prints Markdown; a form that cannot run here says why.

- float32, bfloat16: the shipped form (`network.inference.fold`) in either precision
- all members at once: one convolution for each layer, whose groups are the members
- TorchScript: the shipped form traced, frozen and optimized for inference
- torch.compile: by inductor; the first call, which compiles, is timed apart
- int8: static quantization of the convolutions, calibrated on half of the patches
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from gcnn_cli.detection.detector import make_detector
from gcnn_cli.detection.lungs import segment_lungs
from gcnn_cli.detection.patches import patch_batches
from gcnn_cli.network.committee import mean_logit, members_of, shares_of
from gcnn_cli.network.inference import FoldedGCNN, fold
from gcnn_cli.network.weights import load_model
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.resample import resample

SAMPLE = Path(__file__).resolve().parents[2] / "sample_data" / "thorax.mhd"
PART = 4  # patches that detection scores at once on a CPU
CPU = torch.device("cpu")

Form = Callable[[Tensor], Tensor]


class Grouped(nn.Module):
    """All members of a committee as one stack of grouped convolutions. Patches [B, 1, *grid] -> mean logit [B]."""

    def __init__(self, members: list[FoldedGCNN], shares: tuple[float, ...]) -> None:
        super().__init__()
        self.members, self.shares = members, shares  # a list: their heads are used as they are
        layers: list[nn.Module] = []
        for parts in zip(*(member.layers for member in members), strict=True):
            if not isinstance(parts[0], nn.Conv3d):
                layers.append(parts[0])
                continue
            first = parts[0]
            assert all(isinstance(part, nn.Conv3d) and part.bias is not None for part in parts)
            groups = len(parts) if layers else 1  # all read the one channel of the patch
            joined = nn.Conv3d(
                first.in_channels * groups, first.out_channels * len(parts), first.kernel_size,
                first.stride, first.padding, groups=groups,
            )  # fmt: skip
            joined.weight = nn.Parameter(torch.cat([part.weight for part in parts]))
            joined.bias = nn.Parameter(torch.cat([part.bias for part in parts]))
            layers.append(joined)
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last_3d)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.layers(x).chunk(len(self.members), dim=1)
        return mean_logit([m.score_map(y) for m, y in zip(self.members, maps, strict=True)], self.shares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="committee")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--patches", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore")
    network = load_model(arguments.model).network
    shipped = fold(network).eval().requires_grad_(False)
    patches = patches_of(arguments.model, arguments.patches)
    forms: dict[str, Form] = {"bfloat16 (shipped)": in_bfloat16(shipped), "float32": shipped}
    notes: dict[str, str] = {}
    makers: dict[str, Callable[[], Form]] = {
        "all members at once, bfloat16": lambda: grouped(network),
        "TorchScript, bfloat16": lambda: scripted(shipped, patches[:PART]),
        "torch.compile, bfloat16": lambda: in_bfloat16(torch.compile(shipped)),
        "int8": lambda: quantized(shipped, patches[: len(patches) // 2]),
    }
    for name, make in makers.items():
        begun = time.monotonic()
        try:
            form = make()
            scores(form, patches[:PART])
        except Exception as error:  # a measurement of what this machine can do
            notes[name] = f"does not run here: {type(error).__name__}: {str(error).splitlines()[0][:90]}"
            continue
        forms[name] = form
        notes[name] = f"first call {time.monotonic() - begun:.1f} s"
    reference = scores(shipped, patches)
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    logits = {name: scores(form, patches) for name, form in forms.items()}
    for _ in range(arguments.rounds):
        for name, form in forms.items():
            begun = time.perf_counter()
            scores(form, patches)
            seconds[name].append(time.perf_counter() - begun)
    print("| form | patches/s | time relative to the shipped form (range) | largest change of a logit | notes |")
    print("|---" * 5 + "|")
    first = next(iter(seconds))
    for name in (*forms, *(n for n in notes if n not in forms)):
        if name not in forms:
            print(f"| {name} | | | | {notes[name]} |")
            continue
        ratios = [a / b for a, b in zip(seconds[name], seconds[first], strict=True)]
        speed = arguments.patches / statistics.median(seconds[name])
        change = float((logits[name] - reference).abs().max())
        print(
            f"| {name} | {speed:.0f} | {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
            f" | {change:.3f} | {notes.get(name, '')} |"
        )


def patches_of(model: str, count: int) -> Tensor:
    """Patches [count, 1, *grid] at the first candidates of the sample scan."""
    detector = make_detector(load_model(model), CPU)
    grid = resample(read_volume(SAMPLE), detector.spacing_mm)
    lungs = segment_lungs(grid, detector.config.lungs)
    places = [c.position_mm for c in detector.proposer.propose(grid, lungs, detector.config.proposals)[:count]]
    batches = patch_batches(grid, places, detector.model.input, count)
    return torch.cat(list(batches)).contiguous(memory_format=torch.channels_last_3d)


@torch.inference_mode()
def scores(form: Form, patches: Tensor) -> Tensor:
    """Logits [N] in float32, in parts as detection scores them."""
    return torch.cat([form(part).float() for part in patches.split(PART)])


def in_bfloat16(form: Form) -> Form:
    def score(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return form(x)

    return score


def grouped(network: nn.Module) -> Form:
    members = [FoldedGCNN(member) for member in members_of(network)]  # type: ignore[arg-type]
    return in_bfloat16(Grouped(members, shares_of(network)).eval().requires_grad_(False))  # type: ignore[arg-type]


def scripted(shipped: nn.Module, example: Tensor) -> Form:
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False), torch.inference_mode():
        traced = torch.jit.freeze(torch.jit.trace(shipped, example, check_trace=False))
        traced(example)
        return traced  # type: ignore[no-any-return]


def quantized(shipped: nn.Module, calibration: Tensor) -> Form:
    """Every member's convolutions in int8; the heads stay as they are."""
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    members = list(shipped.members) if hasattr(shipped, "members") else [shipped]
    shares = getattr(shipped, "shares", (1.0,))
    torch.backends.quantized.engine = "x86"
    stacks = []
    for member in members:
        prepared = prepare_fx(member.layers, get_default_qconfig_mapping("x86"), example_inputs=(calibration[:1],))
        with torch.inference_mode():
            for part in calibration.split(PART):
                prepared(part)
        stacks.append(convert_fx(prepared))
    return lambda x: mean_logit([m.score_map(s(x)) for m, s in zip(members, stacks, strict=True)], shares)


if __name__ == "__main__":
    main()
