"""The examples run and print their table; the numbers of docs/layers.md are checked by running them in full."""

import os
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(("example", "library"), [("digits", "sklearn"), ("solids", "torch")])
def test_an_example_prints_its_table_and_draws_its_plot(example, library, root, tmp_path):
    pytest.importorskip(library)
    command = [sys.executable, root / "examples" / f"{example}.py", "--steps", "2", "--draws", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment(root), timeout=500)
    assert done.returncode == 0, done.stderr
    assert "| plain |" in done.stdout
    assert (tmp_path / f"{example}.png").read_bytes().startswith(b"\x89PNG")


def environment(root):
    return {**os.environ, "PYTHONPATH": str(root)}
