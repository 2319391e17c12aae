"""The public names: all of them resolve, a type checker sees the same ones, and importing the package loads nothing."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import gcnn_cli
import gcnn_cli.symmetry


@pytest.mark.parametrize("package", [gcnn_cli, gcnn_cli.symmetry], ids=lambda package: package.__name__)
def test_every_public_name_resolves(package):
    assert len(package.__all__) == len(set(package.__all__))
    for name in package.__all__:
        assert getattr(package, name) is not None
        assert name in dir(package)


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(gcnn_cli.__file__).read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname: statement.module for statement in block.body for alias in statement.names}
    assert {name: f"gcnn_cli.{module}" for name, module in gcnn_cli._MODULES.items()} == seen
    for name, module in seen.items():
        assert getattr(gcnn_cli, name) is getattr(importlib.import_module(module), name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'gcnn_cli' has no attribute 'detekt'"):
        gcnn_cli.detekt  # noqa: B018


def test_importing_the_package_loads_no_module_of_it():
    script = (
        "import sys, gcnn_cli\n"
        "loaded = [name for name in sys.modules if name.startswith('gcnn_cli.') or name in ('torch', 'numpy')]\n"
        "sys.exit(f'loaded {loaded}' if loaded else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
