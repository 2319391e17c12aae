"""The direction of flow, and what starting up may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "gcnn_cli"

# room: rooms it may import. errors, files, locks and the package itself are open to all.
ALLOWED = {
    "__init__": {"api", "scan", "network", "detection", "output", "evaluation"},
    "api": {"scan", "network", "detection", "output", "evaluation"},
    "scan": set(),
    "symmetry": set(),
    "network": {"symmetry"},
    "phantom": {"scan"},
    "detection": {"scan", "network"},
    "output": {"detection", "scan"},
    "labels": {"scan"},
    "samples": {"scan", "detection", "labels"},
    "training": {"symmetry", "network", "detection", "samples", "evaluation"},
    "proposals": {"scan", "symmetry", "network", "detection", "labels", "samples", "training"},
    "experiment": {"symmetry", "network", "samples", "training", "evaluation"},
    "evaluation": {"detection", "labels", "output"},
    "cohort": {"scan", "network", "detection", "output", "labels"},
    "review": {"scan", "detection", "output", "labels"},
    "followup": {"scan", "network", "detection", "output"},
    "__main__": {"cli"},
    "cli": {
        "scan",
        "network",
        "detection",
        "output",
        "labels",
        "samples",
        "training",
        "proposals",
        "experiment",
        "phantom",
        "cohort",
        "followup",
        "evaluation",
        "review",
    },
}
# library: the rooms that may see it.
LIBRARIES = {
    "typer": {"cli"},
    "rich": {"cli", "output"},
    "SimpleITK": {"scan", "followup"},
    "pydicom": {"scan", "output"},
    "matplotlib": {"output", "evaluation", "samples", "training", "experiment"},
    "PIL": {"output"},
    "jinja2": {"output", "followup"},
    "highdicom": {"output"},
    "torch": {"symmetry", "network", "detection", "samples", "training", "proposals", "experiment", "cli"},
    "safetensors": {"network"},
    "distributed": {"cohort"},
    "dask": {"cohort"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path):
    """Everything that a file imports, by its whole name, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_rooms_import_only_upstream(path):
    room = room_of(path)
    for module in imports_of(path):
        top, _, rest = module.partition(".")
        if top == "gcnn_cli" and rest:
            other = rest.split(".")[0]
            assert other in {room, "errors", "files", "locks", "__version__", "NOTICE"} | ALLOWED.get(room, set()), (
                f"{room} imports {other}"
            )
        if top in LIBRARIES:
            assert room in LIBRARIES[top], f"{room} imports {top}"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["detect", "--help"], ["--show-completion", "bash"]])
def test_help_loads_nothing_heavy(arguments):
    script = (
        "import sys\n"
        f"sys.argv = ['gcnn', *{arguments!r}]\n"
        "from gcnn_cli.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'SimpleITK', 'scipy', 'numpy', 'skimage', 'pydicom'}\n"
        "heavy |= {'matplotlib', 'PIL', 'jinja2', 'highdicom', 'dask', 'distributed'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)\n"
    )
    assert_runs(script)


def test_loading_weights_does_not_load_torchs_compiler():
    """It costs a second, and torch takes it in for the sake of a tensor without values, say."""
    script = (
        "import sys\n"
        "import torch\n"
        "from gcnn_cli.detection.detector import make_detector\n"
        "from gcnn_cli.network.weights import load_model\n"
        "detector = make_detector(load_model('octahedral'), torch.device('cpu'), average_over='O')\n"
        "sys.exit(f'{detector} loaded it' if {'torch._dynamo', 'sympy'} & sys.modules.keys() else 0)\n"
    )
    assert_runs(script)


def assert_runs(script):
    """In an interpreter of its own, which has loaded nothing yet."""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_modules_stay_readable():
    long = {str(p.relative_to(PACKAGE)): n for p in MODULES if (n := len(p.read_text("utf-8").splitlines())) > 350}
    assert not long
