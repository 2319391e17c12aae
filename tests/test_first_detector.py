"""The way of docs/first_detector.md, on coarse scans with small weights: detect, correct, train on, compare."""

import csv
import re
import shlex

import pytest
from conftest import make_network
from training.recipes import QUICK_RECIPE
from typer.testing import CliRunner

from gcnn_cli.cli import app
from gcnn_cli.files import csv_text
from gcnn_cli.network.contract import Calibration, InputSpec
from gcnn_cli.network.weights import TrainedModel, load_model, save_model
from gcnn_cli.phantom import make_phantom, quick_config, write_phantom

SCANS = 3
# Of a quick recipe, what does not follow from the parent.
RECIPE = QUICK_RECIPE[QUICK_RECIPE.index("[samples]") :]


@pytest.fixture(scope="module")
def commands(root):
    """The page's commands, each as a list of words."""
    page = (root / "docs" / "first_detector.md").read_text("utf-8")
    lines = [
        line.strip()
        for block in re.findall(r"^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
        for line in block.splitlines()
    ]
    return [shlex.split(line)[1:] for line in lines if line.startswith("gcnn ")]


def test_the_page_names_its_steps_in_order(commands):
    assert [command[0] for command in commands] == ["phantom", "detect", "view", "train", "train", "evaluate"]


@pytest.mark.slow
def test_the_way_can_be_walked(commands, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    phantoms = [make_phantom(quick_config(n, nodules=4)) for n in range(SCANS)]
    for n, made in enumerate(phantoms, start=1):
        write_phantom(made, tmp_path / "truth" / str(n), name=f"thorax-{n}")
        (tmp_path / "scans").mkdir(exist_ok=True)
        for path in (tmp_path / "truth" / str(n)).glob("thorax-*"):
            path.rename(tmp_path / "scans" / path.name)
    meaning = Calibration(threshold=0.5, operating_points=((1.0, 0.5), (4.0, 0.0)))  # every candidate at 4
    save_model(
        TrainedModel("small", make_network("trivial", side=16), InputSpec(spacing_mm=3.0, side=16), meaning),
        tmp_path / "small.safetensors",
    )
    (tmp_path / "quick.toml").write_text(RECIPE)

    def run(command, *options):
        words = ["small.safetensors" if word == "octahedral" else word for word in command]
        done = CliRunner().invoke(app, [*words, *options])
        assert done.exit_code == 0, done.output
        return done.stdout

    _, detect, _, dry_run, train, _ = commands
    run(detect, "--model", "small.safetensors")
    correct(tmp_path, phantoms)
    quick = ("--config", "quick.toml", "--cache", "cache", "--threads", "1")
    held = ("--hold-out", "thorax-1", "--hold-out", "thorax-2", "--hold-out-share", "0")
    told = run(dry_run, *quick, *held)
    assert "scans to preprocess: 3" in told
    assert not (tmp_path / "mine.safetensors").exists()
    told = run(train, *quick, *held)
    assert "Keep the parent's weights" in told  # two patients decide nothing
    assert load_model("mine.safetensors").provenance["parent"]["name"] == "small"


def correct(folder, phantoms):
    """What three corrections in the browser leave: a finding rejected, one moved, a missed nodule added."""
    annotations, found = [], {}
    for n, made in enumerate(phantoms, start=1):
        with (folder / "results" / f"thorax-{n}.nodules.csv").open() as file:
            found[n] = list(csv.DictReader(file))
        # The reader knows the truth: accepted and moved findings lie on it, and what was missed is added.
        annotations += [(f"thorax-{n}", *nodule.position_mm, nodule.diameter_mm) for nodule in made.nodules]
    assert any(found.values())
    columns = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")
    (folder / "review").mkdir()
    (folder / "review" / "annotations.csv").write_text(csv_text(columns, annotations))
    (folder / "review" / "annotations_excluded.csv").write_text(csv_text(columns, ()))
    (folder / "review" / "seriesuids.csv").write_text("".join(f"thorax-{n}\n" for n in found))
