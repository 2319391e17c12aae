"""The article's networks: recipes by name, samples on their voxels, training to weights that find nodules' places."""

import dataclasses

import numpy as np
import pytest
import torch
from training.test_training import write_stack
from typer.testing import CliRunner

from gcnn_cli.cli import app
from gcnn_cli.detection.detector import make_detector
from gcnn_cli.detection.patches import patch_batches
from gcnn_cli.detection.pipeline import detect
from gcnn_cli.detection.proposals import ProposalConfig
from gcnn_cli.errors import InputError, ModelError, UsageError
from gcnn_cli.experiment.arms import make_arms
from gcnn_cli.labels.index import read_index
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.network.weights import load_model
from gcnn_cli.phantom import write_phantom
from gcnn_cli.samples.donors import read_donor
from gcnn_cli.samples.preprocessed import preprocess_scan
from gcnn_cli.samples.sample import Sample, SampleConfig
from gcnn_cli.samples.scan_samples import scan_samples
from gcnn_cli.samples.split import SplitConfig
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.resample import resample
from gcnn_cli.training import run as training_run
from gcnn_cli.training.article import ARTICLE_NETWORKS, article_network
from gcnn_cli.training.augment import AugmentConfig, Chances, make_batch, plain_batch
from gcnn_cli.training.recipe import read_recipe, recipe_text
from gcnn_cli.training.run import RunConfig, run_training

FLAT = SampleConfig(
    spacing_mm=(2.5, 1.5, 1.5),
    side=(12, 28, 28),
    candidates_per_scan=12,
    transplants_per_scan=6,
    shams_per_scan=3,
)
SPEC = InputSpec(spacing_mm=(2.5, 1.5, 1.5), side=(8, 18, 18))


@pytest.fixture(scope="module")
def folder(phantom, tmp_path_factory):
    made = tmp_path_factory.mktemp("flat") / "data"
    write_phantom(phantom, made / "scan", name="LIDC-IDRI-0001")
    (made / "nodules").mkdir()
    write_stack(made / "nodules", "LIDC-IDRI-0001_R_0")
    return made


@pytest.fixture(scope="module")
def entry(folder):
    return read_index([folder]).scans[0]


@pytest.fixture(scope="module")
def flat(entry):
    """The scan on voxels that are no cubes."""
    return preprocess_scan(entry, FLAT, seed=0)


@pytest.mark.parametrize("name", ARTICLE_NETWORKS)
def test_a_recipe_has_the_name_of_its_network(tmp_path, name):
    recipe = read_recipe(tmp_path.__class__(name), {"train": {"steps": 7}})
    assert recipe.train.network == article_network(name)
    assert (recipe.train.steps, recipe.train.batch_size) == (7, 30)
    assert recipe.train.input == InputSpec((1.25, 0.5, 0.5), (12, 72, 72), -1000, 300)
    (tmp_path / "r.toml").write_text(recipe_text(recipe))
    assert read_recipe(tmp_path / "r.toml") == recipe


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            "[input]\nside = [16, 72, 72]",
            ModelError,
            "O exchanges the axes z and y, along which the patch is 16 and 72",
        ),
        ("[input]\nside = [12, 72]", ModelError, "the side of a patch must be"),
        ("[input]\nside = [12, 7.5, 72]", InputError, "side in .network. is .7.5., not a whole number"),
        ("[input]\nspacing_mm = [2.0, 1.0, 1.0]", InputError, "spacing_mm is 1 in .samples. and .2, 1, 1. in .input."),
        (
            "[input]\nspacing_mm = [2.0, 1.0, 1.0]\n[samples]\nspacing_mm = [2.0, 1.0, 1.0]",
            ModelError,
            "along which the spacing in mm is 2 and 1",
        ),
        (
            '[network]\ngroup = "D4"\n[input]\nside = [16, 32, 32]',
            InputError,
            "turn_group in .augment.: Oh exchanges the axes z and y, .* choose D4h or trivial",
        ),
    ],
)
def test_flat_recipes_that_contradict_themselves_are_refused(tmp_path, text, error, message):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(error, match=message):
        read_recipe(tmp_path / "r.toml")


def test_the_networks_of_the_article_are_arms_of_the_learning_curve():
    recipe = read_recipe(read_recipe.__globals__["Path"]("winkels2018-trivial"))
    names = ("winkels2018-trivial", "winkels2018-o", "winkels2018-d4h-span")
    for arm, name in zip(make_arms(names, recipe.train.network), names, strict=True):
        made = arm.configure(recipe.train, seed=3)
        assert (made.network, made.augment.turn_group, made.seed) == (article_network(name), "D4h", 3)
    with pytest.raises(UsageError, match="winkels2018-o has patches of .12, 72, 72.; use --config winkels2018-o"):
        make_arms(("winkels2018-o",), read_recipe(None).train.network)
    with pytest.raises(ModelError, match="O exchanges the axes z and y"):
        make_arms(("O",), recipe.train.network)
    assert make_arms(("D4",), recipe.train.network)[0].configure(recipe.train, 0).network.sides == (12, 72, 72)


# Samples on voxels that are no cubes


def test_training_sees_what_detection_sees(flat, entry):
    """The patch of a candidate is the same, voxel by voxel, from a training sample and from detection's cutting."""
    samples = [s for s in scan_samples(flat, entry, [], FLAT, 0) if s.kind in ("mark", "candidate")]
    assert {s.sides for s in samples} == {(12, 28, 28)}
    marks = [s for s in samples if s.kind == "mark"]
    grid = resample(read_volume(entry.path), FLAT.spacing_mm)
    assert grid.spacing_zyx == pytest.approx(FLAT.spacing_zyx)
    expected = torch.cat(list(patch_batches(grid, [tuple(mark[:3]) for mark in entry.nodules], SPEC, 4)))
    patches = plain_batch(marks, SPEC)
    assert patches.shape[1:] == (1, 8, 18, 18)
    assert (patches - expected).abs().max() < 2 / 1400 + 1e-6  # samples are whole HU


def test_places_for_transplants_stay_in_the_lungs_of_another_grid(flat, entry):
    cubic = preprocess_scan(entry, dataclasses.replace(FLAT, spacing_mm=1.0, side=24), seed=0)
    apart = flat.position_mm(flat.places.astype(float)) - cubic.position_mm(cubic.places.astype(float))
    assert (np.abs(apart) <= np.array([1.5, 1.5, 2.5]) / 2 + 1e-6).all()
    assert np.allclose(flat.position_mm(flat.candidates), cubic.position_mm(cubic.candidates))


def test_a_ball_stays_a_ball_when_patches_are_turned_and_scaled():
    """Turns, scales and shifts are those of millimeters: the second moments of a ball stay equal along all axes."""
    z, y, x = ((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip((24, 48, 48), SPEC.spacing_zyx, strict=True))
    ball = np.exp(-(z[:, None, None] ** 2 + y[:, None] ** 2 + x**2) / (2 * 4.0**2))
    hu = np.round(ball * 1000 - 1000).astype(np.int16)
    spec = InputSpec(SPEC.spacing_mm, (16, 30, 30), -1000, 400)
    sample = Sample(lambda: hu, hu.shape, 1, "cube", "p", "s", 0, 24)
    config = AugmentConfig(
        0, shift_mm=2.0, turn_degrees=40, scale=0.1, hu_offset=0, hu_scale=0, noise_hu=0, turn_group="D4h",
        interpolated_share=1.0,
    )  # fmt: skip
    patches, _ = make_batch([sample] * 8, spec, config, Chances(), np.random.default_rng(0))
    mass = (patches[:, 0].double().numpy() + 1).clip(0)
    coordinates = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(spec.sides, spec.spacing_zyx, strict=True)]
    widths = []
    for axis, values in enumerate(coordinates):
        profile = mass.sum(axis=tuple(a + 1 for a in range(3) if a != axis))
        middle = (profile @ values) / profile.sum(axis=1)
        widths.append(np.sqrt((profile @ values**2) / profile.sum(axis=1) - middle**2))
        assert 0.3 < middle.std() < 5
    assert np.abs(np.array(widths) / np.mean(widths, axis=0) - 1).max() < 0.06
    assert 3.5 < np.mean(widths) < 4.6


def test_donors_are_transplanted_on_flat_grids(folder, flat, entry):
    donor = read_donor(read_index([folder]).cutouts[0], FLAT)
    assert donor.stop - donor.first == donor.hu.shape[0] < 12
    assert donor.cube.shape == donor.weight.shape == (12, 28, 28)
    made = [s for s in scan_samples(flat, entry, [donor], FLAT, 0) if s.kind == "transplant"]
    assert len(made) == 6
    assert all(s.hu.shape == (12, 28, 28) for s in made)


# Training


@pytest.mark.slow
@pytest.mark.parametrize("name", ARTICLE_NETWORKS)
def test_every_network_of_the_article_trains_to_weights_that_detect(name, folder, entry, tmp_path_factory, monkeypatch):
    """One step on few samples: the whole way from the named recipe to a report."""
    few = ProposalConfig(kept=3)

    def small(detector):
        return dataclasses.replace(detector, config=dataclasses.replace(detector.config, proposals=few))

    future = training_run.future_detector
    monkeypatch.setattr(training_run, "future_detector", lambda train, proposals: small(future(train, proposals)))
    home = tmp_path_factory.getbasetemp() / "article"
    # Nothing is held out to stop by.
    recipe = read_recipe(home.__class__(name), {"train": {"steps": 1, "patience": 0}})
    recipe = dataclasses.replace(
        recipe,
        train=dataclasses.replace(recipe.train, batch_size=2),
        samples=dataclasses.replace(
            recipe.samples, candidates_per_scan=40, transplants_per_scan=0, shams_per_scan=0, stack_negatives=0
        ),
        split=SplitConfig(share=0.0),
    )
    out = home / f"{name}.safetensors"
    run_training(RunConfig((folder,), out, recipe, cache=home / "cache"))
    model = load_model(str(out))
    assert model.network.config == article_network(name)
    assert bool(model.limits) == (not name.endswith("-span") and not name.endswith("trivial"))
    detector = small(make_detector(model, torch.device("cpu")))
    report = detect(read_volume(entry.path), detector, threshold=0)
    assert report.nodules
    assert report.options["spacing_mm"] == (1.25, 0.5, 0.5)


def test_the_recipe_of_the_page_is_one(root, tmp_path):
    page = (root / "docs" / "training.md").read_text("utf-8")
    text = page.split("```toml\n")[1].split("```")[0]
    (tmp_path / "r.toml").write_text(text)
    network = read_recipe(tmp_path / "r.toml").train.network
    assert (network.sides, network.map_sides, network.invariant_under) == ((16, 48, 48), (4, 6, 6), "D4h")


@pytest.mark.parametrize("command", ["train", "learning-curve"])
def test_the_commands_take_a_network_by_its_name(tmp_path, command):
    """The data are refused, not the recipe; a misspelled name is a missing file."""
    (tmp_path / "empty").mkdir()
    words = [command, "--data", str(tmp_path / "empty"), "--out", str(tmp_path / "out.safetensors"), "--config"]
    arms = ["--groups", "winkels2018-trivial"] if command == "learning-curve" else []
    named = CliRunner().invoke(app, [*words, "winkels2018-trivial", "-q", *arms])
    assert named.exit_code == 3
    assert "empty" in named.stderr
    missing = CliRunner().invoke(app, [*words, "winkels2018-none", "-q"])
    assert (missing.exit_code, missing.stderr.count("\n")) == (3, 1)
    assert "winkels2018-none" in missing.stderr
