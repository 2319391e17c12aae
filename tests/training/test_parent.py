"""Training on from other weights: what is kept, what is named, what is refused; the comparison and the dry run."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_network
from training.recipes import QUICK_RECIPE
from typer.testing import CliRunner

from gcnn_cli.cli import app
from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.evaluation.leakage import find_leakage
from gcnn_cli.network.committee import Committee, members_of, shares_of
from gcnn_cli.network.contract import Calibration, InputSpec
from gcnn_cli.network.weights import TrainedModel, load_model, save_model
from gcnn_cli.phantom import write_phantom
from gcnn_cli.samples.sample import Sample
from gcnn_cli.samples.split import SplitConfig
from gcnn_cli.training.combine import FoldWeights, _provenance
from gcnn_cli.training.comparison import compare_with_parent
from gcnn_cli.training.loop import TrainConfig, train_network
from gcnn_cli.training.parent import Parent, load_parent
from gcnn_cli.training.provenance import NAME_KEYS
from gcnn_cli.training.recipe import read_recipe, recipe_text
from gcnn_cli.training.validation import auc, froc_figures

SHARES = (0.25, 0.75)
SPEC = InputSpec(spacing_mm=3.0, side=16)
# Of a recipe, what does not follow from the parent.
QUICK = QUICK_RECIPE[QUICK_RECIPE.index("[samples]") :]


def single(seed=0):
    return make_network("trivial", side=16, seed=seed)


def model_of(network, **provenance):
    return TrainedModel("parent", network, SPEC, Calibration(average_over="C4"), provenance)


@pytest.fixture(scope="module")
def folder(phantom, tmp_path_factory):
    """Labeled scans of two patients, a single parent and a committee of two, and a recipe."""
    made = tmp_path_factory.mktemp("init")
    for name in ("LIDC-IDRI-0001", "LIDC-IDRI-0002"):
        write_phantom(phantom, made / "data" / name, name=name)
    known = {"training_series": ["x"], "training_patients": ["LIDC-IDRI-0002"]}
    save_model(model_of(single()), made / "one.safetensors")
    save_model(model_of(Committee([single(0), single(1)], SHARES), **known), made / "two.safetensors")
    (made / "quick.toml").write_text(QUICK)
    return made


def run(folder, out, parent, *options):
    parts = ["train", "--data", folder / "data", "--out", out, "--init", folder / parent, "--cache", folder / "cache"]
    split = ["--hold-out", "LIDC-IDRI-0002", "--hold-out-share", 0, "--threads", 1]
    return CliRunner().invoke(app, [str(p) for p in (*parts, "--config", folder / "quick.toml", *split, *options)])


# The parent


@pytest.mark.parametrize("frozen", [0, 1])
def test_training_starts_from_the_parent_and_frozen_layers_stay(frozen):
    rng = np.random.default_rng(0)
    cubes = [rng.normal(-400, 300, (24,) * 3).astype(np.int16) for _ in range(8)]
    samples = [
        Sample(lambda hu=hu: hu, 24, n % 2, ("candidate", "mark")[n % 2], f"p{n}", f"s{n}", 0, 24)
        for n, hu in enumerate(cubes)
    ]
    parent = single(3)
    config = TrainConfig(network=parent.config, input=SPEC, steps=3, batch_size=4, learning_rate=1e-4)
    trained, _ = train_network(samples, [], config, lambda _: None, start=parent, frozen=frozen)
    before, after = parent.state_dict(), trained.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    first = {name for name in before if name.startswith("blocks.0.")}
    assert (first <= same) == bool(frozen)
    assert "linear.weight" not in same
    assert (
        max(float((after[n] - before[n]).abs().max()) for n in before if "conv" in n) < 0.01
    )  # a scratch start is far
    assert all(parameter.requires_grad for parameter in trained.parameters())


def test_a_single_parent_becomes_weights_that_name_it(folder, tmp_path):
    done = run(folder, tmp_path / "mine.safetensors", "one.safetensors", "--name-data")
    assert done.exit_code == 0, done.output
    parent, model = load_model(str(folder / "one.safetensors")), load_model(str(tmp_path / "mine.safetensors"))
    assert model.provenance["parent"] == {"name": "parent", "sha256": parent.sha256, "members": 1}
    assert (model.input, model.network.config) == (parent.input, parent.network.config)
    assert model.calibration.average_over == "C4"  # the meaning of its scores is measured as they will be used
    assert "Keep the parent's weights" in done.stdout
    assert "so few patients cannot tell them apart" in done.stdout
    assert "Whether the parent was trained on these patients is unknown" in done.stdout
    assert {"CPM", "AUC"} < set(done.stdout.split())
    assert model.provenance["comparison"]["patients"] == 1
    again = read_recipe(tmp_path / "mine.run" / "recipe.toml", parent=load_parent(str(folder / "one.safetensors")))
    assert again.init.parent == parent.sha256
    with pytest.raises(UsageError, match="name them with --init"):
        read_recipe(tmp_path / "mine.run" / "recipe.toml")
    with pytest.raises(UsageError, match="goes on from other weights than --init"):
        read_recipe(tmp_path / "mine.run" / "recipe.toml", parent=load_parent(str(folder / "two.safetensors")))


def test_a_committee_is_trained_on_member_by_member_and_is_one_again(folder, tmp_path):
    done = run(folder, tmp_path / "mine.safetensors", "two.safetensors", "--name-data", "--steps", 4)
    assert done.exit_code == 0, done.output
    old, new = (load_model(str(f)) for f in (folder / "two.safetensors", tmp_path / "mine.safetensors"))
    assert shares_of(new.network) == SHARES
    pairs = list(zip(members_of(old.network), members_of(new.network), strict=True))
    assert len(pairs) == 2
    for before, after in pairs:  # each goes on from its own
        assert not torch.equal(before.linear.weight, after.linear.weight)
        assert torch.allclose(before.blocks[0].conv.weight, after.blocks[0].conv.weight, atol=0.01)
    lines = (tmp_path / "mine.run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [4, 8]
    stated = new.provenance["validation"]
    assert [line["step"] for line in stated] == [4, 4]
    assert [line["validation"] for line in stated] == [json.loads(line)["validation"] for line in lines]
    assert not list((tmp_path / "mine.run").glob("checkpoint*"))
    assert "trained on 1 of these patients" in done.stdout
    leak = find_leakage(new.provenance, ["x"], ["LIDC-IDRI-0002"])
    assert (leak.series, leak.patients) == (("x",), ("LIDC-IDRI-0002",))  # the parent's, held out here or not


def test_the_parents_calibration_stays_where_nothing_is_held_out(folder, tmp_path, caplog):
    (tmp_path / "all.toml").write_text(QUICK + "[split]\nshare = 0.0\n")
    parent, out = folder / "one.safetensors", tmp_path / "mine.safetensors"
    options = ("--config", tmp_path / "all.toml", "--cache", folder / "cache", "--threads", 1)
    done = CliRunner().invoke(
        app, [str(p) for p in ("train", "--data", folder / "data", "--init", parent, "--out", out, *options)]
    )
    assert done.exit_code == 0, done.output
    assert "no held-out nodules to calibrate on: the new weights keep the parent's calibration" in caplog.text
    model = load_model(str(out))
    assert model.calibration == load_model(str(parent)).calibration
    assert model.provenance["operating_points"]["calibration"] == "the parent's"


def test_a_fold_goes_on_from_the_member_of_its_number(folder):
    parent = load_parent(str(folder / "two.safetensors"))
    members = members_of(parent.model.network)
    for fold, member in ((1, 0), (2, 1), (3, 0)):
        (start,) = parent.starts(SplitConfig(folds=3, fold=fold))
        assert torch.equal(start.linear.weight, members[member].linear.weight)
        assert start is not members[member]
    assert len(parent.starts(SplitConfig())) == 2


def test_what_does_not_fit_the_parent_is_refused(folder, tmp_path, root):
    (tmp_path / "side.toml").write_text("[input]\nside = 24\n[network]\nside = 24\n")
    (tmp_path / "frozen.toml").write_text("[init]\nfrozen = 9\n")
    for options, code, text in (
        (["--group", "O"], 2, "have the group trivial, and the recipe O"),
        (["--config", tmp_path / "side.toml"], 2, "[network] and [input] must be those of the weights"),
        (["--config", tmp_path / "frozen.toml"], 2, "frozen is 9, and the network has 3 convolutions"),
        (["--init", root / "models" / "proposals.safetensors"], 6, "weights of format 3"),
        (["--init", "none"], 6, "no weights named 'none'"),
    ):
        done = run(folder, tmp_path / "a.safetensors", "one.safetensors", *options)
        assert done.exit_code == code, done.output
        assert text in done.stderr
        assert done.stderr.count("\n") == 1
    base = ["train", "--data", str(folder), "--out", str(tmp_path / "a.safetensors"), "--frozen", "1"]
    assert "name these with --init" in CliRunner().invoke(app, base).stderr


def test_a_recipe_with_a_parent_survives_its_file(folder, tmp_path):
    parent = load_parent(str(folder / "two.safetensors"))
    recipe = read_recipe(None, {"init": {"frozen": 2}}, parent)
    assert (recipe.train.learning_rate, recipe.train.steps, recipe.samples.spacing_mm) == (4e-4, 200, 3.0)
    (tmp_path / "r.toml").write_text(recipe_text(recipe))
    assert read_recipe(tmp_path / "r.toml", None, parent) == recipe
    with pytest.raises(InputError, match="frozen"):
        read_recipe(None, {"init": {"frozen": 2}})


def test_a_fold_names_the_data_of_its_own_member():
    """A committee has seen all patients, its member of a fold all but those that it held out."""
    about = {
        "training_series": ["a", "b"], "training_patients": ["p", "q"],
        "members": [
            {"held_out_patients": ["p"], "training_series": ["b"]},
            {"held_out_patients": ["q"], "training_series": ["a"]},
        ],
    }  # fmt: skip
    parent = Parent(model_of(Committee([single(0), single(1)]), **about))
    second = parent.provenance(SplitConfig(folds=2, fold=2))
    assert (second["training_series"], second["training_patients"]) == (["a"], ["p"])
    assert parent.provenance(SplitConfig())["training_patients"] == ["p", "q"]
    nameless = Parent(model_of(Committee([single(0), single(1)]), **{**about, "members": [{}, {}]}))
    assert nameless.provenance(SplitConfig(folds=2, fold=2))["training_patients"] == ["p", "q"]


def test_leakage_is_unknown_where_a_parent_names_no_data():
    own = {"training_series": ["a"], "training_patients": ["p"]}
    assert not find_leakage({**own, "parent": {"name": "x"}}, ["a"], []).known
    assert find_leakage({**own, "parent": {**own, "parent": {"training_series": ["b"]}}}, ["b"], []).series == ("b",)
    assert Parent(model_of(single(), **own, parent={"name": "x"})).patients is None


def test_a_committee_of_folds_names_the_parent_of_its_members():
    split, train = {"folds": 2, "fold": 1}, {"seed": 0}
    given = {"tool": "gcnn", "torch": "2", "recipe": {"split": split, "train": train}, "parent": {"name": "x"}}
    members = [FoldWeights(model_of(single(), **given), {key: [] for key in NAME_KEYS}) for _ in range(2)]
    made = _provenance(members, None, {key: [] for key in NAME_KEYS}, {"cpm": 0.5, "sensitivity_at_1": 0.5})
    assert made["parent"] == {"name": "x"}


# The comparison


def held(patients=6, nodules=3, false=30):
    """Samples of patients with a scan each, and their labels."""
    cube = np.zeros((2, 2, 2), np.int16)
    return [
        Sample(lambda: cube, 2, int(n < nodules), "mark" if n < nodules else "candidate", f"p{p}", f"s{p}", 0, 2)
        for p in range(patients)
        for n in range(nodules + false)
    ]


def test_the_figures_are_those_of_the_evaluation():
    samples, rng = held(), np.random.default_rng(1)
    label = np.array([s.label for s in samples])
    new, parent = (label * strength + rng.normal(0, 1, len(label)).round(1) for strength in (2.0, 1.5))
    made = compare_with_parent(samples, new, parent, set())
    figures = {figure.name: figure for figure in made.figures}
    for logits, attribute in ((new, "new"), (parent, "parent")):
        expected = froc_figures(logits, samples)
        assert getattr(figures["CPM"], attribute) == pytest.approx(expected["cpm"])
        assert getattr(figures["AUC"], attribute) == pytest.approx(auc(logits, label))
    assert (made.patients, made.scans, made.nodules, made.false, made.seen) == (6, 6, 18, 180, 0)


@pytest.mark.parametrize(
    ("gain", "begins", "above"), [(3.0, "Use the new weights", True), (-3.0, "Keep the parent's", False)]
)
def test_a_clear_difference_decides(gain, begins, above):
    samples, rng = held(patients=12), np.random.default_rng(2)
    label = np.array([s.label for s in samples])
    noise = rng.normal(0, 1, len(label))
    made = compare_with_parent(samples, noise + label * max(gain, 0), noise + label * max(-gain, 0), set())
    low, high = made.figures[0].interval
    assert (low > 0, high < 0) == (above, not above)
    assert made.verdict().startswith(begins)
    assert "chance" not in made.verdict()


def test_equal_weights_have_no_difference_and_the_parents_are_kept():
    samples = held()
    logits = np.random.default_rng(3).normal(0, 1, len(samples))
    made = compare_with_parent(samples, logits, logits, None)
    assert [figure.interval for figure in made.figures] == [(0.0, 0.0)] * 3
    assert made.verdict().startswith("Keep the parent's weights")
    assert "may be chance" in made.verdict()


def test_without_scans_the_auc_decides_and_without_a_class_nothing_does():
    cutouts = [replace(s, kind="beside") if s.kind == "candidate" else s for s in held()]
    logits = np.arange(float(len(cutouts)))
    assert [f.name for f in compare_with_parent(cutouts, logits, logits, set()).figures] == ["AUC"]
    only = [s for s in held() if s.label]
    assert compare_with_parent(only, logits[: len(only)], logits[: len(only)], set()) is None


def test_a_single_patient_decides_nothing():
    samples = held(patients=1)
    logits = np.array([float(s.label) for s in samples])
    made = compare_with_parent(samples, logits, -logits, set())
    assert made.figures[0].interval is None
    assert "cannot tell them apart" in made.verdict()


# The dry run


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(folder, tmp_path):
    before = sorted(folder.rglob("*"))
    done = run(folder, tmp_path / "mine.safetensors", "two.safetensors", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "2 networks, one after the other, 4 steps each" in done.stdout
    assert "scans to preprocess: 2" in done.stdout
    assert "1 of the held-out patients were in the parent's training data" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert sorted(folder.rglob("*")) == before
