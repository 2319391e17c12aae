"""Do the tests notice defects? Small changes made to the code, one at a time, and the rooms' own fast tests run.

    python tests/benchmarks/mutants.py [ROOM ...] [--every 1] [--seconds 60]             (pip install cosmic-ray)

The changes are those of cosmic-ray, without those that say the same again (of an arithmetic operator only the
usual counterpart; identity of objects only where it was asked for). Its own runner starts an interpreter for every
mutant; here a process that has the libraries loaded forks, which takes a third of the time. A mutant that cannot be
imported is no test of the tests and is not counted. One that runs too long is noticed. Survivors are told with
their line on stderr, as they are found.
"""

import argparse
import contextlib
import difflib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import CodeType

import numpy  # noqa: F401 - loaded before the forks
import pydicom  # noqa: F401
import pytest
import scipy.ndimage  # noqa: F401
import SimpleITK  # noqa: F401
import torch
import typer.testing  # noqa: F401
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import MutationVisitor
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parents[2]
ROOMS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "groups": (
        tuple(
            f"symmetry/{name}.py"
            for name in (
                "groups",
                "shapes",
                "actions",
                "laws",
                "expansion",
                "layers",
                "pools",
                "norms",
                "fast_norm",
                "restriction",
                "dropout",
            )
        ),
        ("symmetry",),
    ),
    "geometry": (
        ("scan/dicom/geometry.py", "scan/dicom/gaps.py"),
        ("scan/dicom/test_geometry.py", "scan/dicom/test_gaps.py"),
    ),
    "froc": (("evaluation/froc.py", "evaluation/matching.py"), ("evaluation/test_froc.py",)),
    "merging": (("detection/merge.py",), ("detection/test_merge.py",)),
}
_COUNTERPARTS = {"Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Div", "Mod_Mul", "Pow_Mul", "BitAnd_BitOr"}
_COUNTERPARTS |= {"BitOr_BitAnd", "BitXor_BitAnd"}
_NOT_IMPORTED = 2  # pytest's exit status when it is interrupted, by an error of collection


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rooms", nargs="*", default=[], metavar="ROOM", help=", ".join(ROOMS))
    parser.add_argument("--seconds", type=int, default=60, help="that a run of the tests may take")
    parser.add_argument("--every", type=int, default=1, help="take only every N-th mutant")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
    print("| code | mutants | noticed | share |\n|---|---|---|---|")
    for room in arguments.rooms or ROOMS:
        files, tests = ROOMS[room]
        if run(None, "", tests, 10 * arguments.seconds) != 0:
            raise SystemExit(f"{room}: the tests fail without any mutant")
        for file in files:
            counts = study(ROOT / "gcnn_cli" / file, tests, arguments.every, arguments.seconds)
            counted = counts["noticed"] + counts["survived"]
            print(
                f"| {file} | {counted} | {counts['noticed']} | {counts['noticed'] / max(counted, 1):.1%} |", flush=True
            )


def study(path: Path, tests: Sequence[str], every: int, seconds: int) -> Counter[str]:
    """How many mutants of a file were noticed; tells the changed lines of those that were not."""
    source = path.read_text("utf-8")
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    counts: Counter[str] = Counter()
    for mutant in islice(mutants(source), 0, None, every):
        status = run(module, mutant, tests, seconds)
        fate = {0: "survived", _NOT_IMPORTED: "not imported"}.get(status, "noticed")
        counts[fate] += 1
        if fate == "survived":
            print(f"- `{path.name}`: {_change(source, mutant)}", file=sys.stderr, flush=True)
    return counts


def mutants(source: str) -> Iterator[str]:
    """The source with one change each."""
    seen = {source}
    for name in operator_names():
        if not _tells_something(name):
            continue
        operator = get_operator(name)()
        tree = get_ast(source)
        places = sum(1 for node in ast_nodes(tree) for _ in operator.mutation_positions(node))
        for occurrence in range(places):
            mutant = MutationVisitor.mutate_code(source, operator, occurrence)
            if mutant is not None and mutant not in seen:
                seen.add(mutant)
                yield mutant


def _tells_something(name: str) -> bool:
    if "Variable" in name:  # asks for variables' names
        return False
    if found := re.search(r"ReplaceBinaryOperator_(\w+)", name):
        return found[1] in _COUNTERPARTS
    if found := re.search(r"ReplaceComparisonOperator_(\w+)_(\w+)", name):
        return (found[1] in ("Is", "IsNot")) == (found[2] in ("Is", "IsNot"))
    return True


def _change(source: str, mutant: str) -> str:
    lines = [line for line in difflib.unified_diff(source.split("\n"), mutant.split("\n"), lineterm="", n=0)][3:]
    return " → ".join(f"`{line[1:].strip()}`" for line in lines)


def run(module: str | None, source: str, tests: Sequence[str], seconds: int) -> int:
    """pytest's exit status with a module replaced; -1 after too long a time."""
    process = os.fork()
    if process == 0:
        os._exit(_tested(module, source, tests))
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return -1


def _tested(module: str | None, source: str, tests: Sequence[str]) -> int:
    os.chdir(ROOT)
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        if module is not None:
            try:
                code = compile(source, module, "exec")
            except SyntaxError:
                return _NOT_IMPORTED
            sys.meta_path.insert(0, _Instead(module, code))
        paths = [str(ROOT / "tests" / test) for test in tests]
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:faulthandler", "--hypothesis-seed=0"]
        return int(pytest.main([*options, *paths]))


class _Instead(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads a mutant under the name of a module."""

    def __init__(self, name: str, code: CodeType) -> None:
        self.name, self.code = name, code

    def find_spec(self, fullname: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self) if fullname == self.name else None

    def exec_module(self, module: object) -> None:
        exec(self.code, module.__dict__)


if __name__ == "__main__":
    main()
