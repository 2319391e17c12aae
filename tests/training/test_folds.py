"""Folds by patient: everyone is held out once, and a committee is made of what each network has not seen."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training.recipes import QUICK_RECIPE
from typer.testing import CliRunner

from gcnn_cli.cli import app
from gcnn_cli.errors import InputError
from gcnn_cli.labels.entries import CutoutEntry, DataIndex, ScanEntry
from gcnn_cli.network.committee import members_of, shares_of
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.network.weights import load_model, save_model
from gcnn_cli.phantom import write_phantom
from gcnn_cli.samples.split import SplitConfig, check_fold, held_out_patients
from gcnn_cli.training.combine import check_folds, read_fold, read_other
from gcnn_cli.training.provenance import NAME_KEYS

WITH_LABELS = ("a", "b", "b", "c")  # two dates of b
WITHOUT = ("host", "b")
CUTOUTS = tuple(f"patient-{n}" for n in range(60))


def make_index(more=()):
    scans = [ScanEntry(Path(f"{n}.mha"), f"{n}", patient, True) for n, patient in enumerate(WITH_LABELS)]
    scans += [ScanEntry(Path(f"u{n}.mha"), f"u{n}", patient, False) for n, patient in enumerate(WITHOUT)]
    cutouts = [CutoutEntry(Path(f"{p}.npz"), p, p) for p in (*CUTOUTS, "a", "", *more)]
    return DataIndex(tuple(scans), tuple(cutouts))


def folds_of(index, folds=3, seed=0):
    return [held_out_patients(index, SplitConfig(folds=folds, fold=n + 1, seed=seed)) for n in range(folds)]


def test_every_patient_but_those_of_unlabelled_scans_alone_is_held_out_once():
    held = folds_of(make_index())
    assert sorted(patient for fold in held for patient in fold) == sorted({*WITH_LABELS, *CUTOUTS})


def test_every_fold_holds_a_labelled_scan():
    assert [len(fold & set(WITH_LABELS)) for fold in folds_of(make_index())] == [1, 1, 1]


def test_new_cutouts_move_nobody():
    before, after = folds_of(make_index()), folds_of(make_index(more=("someone", "else")))
    assert [a - b for a, b in zip(before, after, strict=True)] == [set(), set(), set()]


def test_folds_are_of_like_size_and_of_their_seed():
    held = folds_of(make_index())
    assert all(10 <= len(fold) <= 32 for fold in held)
    assert folds_of(make_index(), seed=1) != held


def test_named_patients_are_held_out_of_every_fold():
    for fold in (1, 2, 3):
        assert {"host", "patient-3"} <= held_out_patients(
            make_index(), SplitConfig(hold_out=("host", "patient-3", "nobody"), folds=3, fold=fold)
        )


def test_a_fold_without_a_labelled_scan_of_its_own_is_refused(caplog):
    """b is held out of every fold, and its turn is that of fold 2."""
    index = make_index()
    check_fold(index, SplitConfig(folds=3, fold=2))
    assert not caplog.records
    check_fold(index, SplitConfig(hold_out=("b",), folds=3, fold=1))
    assert "gcnn combine will refuse the folds: fold 2 holds out no labeled scan" in caplog.text
    with pytest.raises(InputError, match=r"\[split\] folds = 3: .* fold 2 holds out no labeled scan of its own"):
        check_fold(index, SplitConfig(hold_out=("b",), folds=3, fold=2))
    check_fold(replace(index, scans=index.scans[4:]), SplitConfig(folds=3, fold=2))  # no labels at all
    check_fold(index, SplitConfig(hold_out=("b",)))


@pytest.mark.parametrize(("folds", "fold"), [(5, 0), (5, 6), (0, 1), (1, 1), (-2, -1)])
def test_impossible_folds_are_refused(folds, fold):
    with pytest.raises(InputError, match="fold"):
        SplitConfig(folds=folds, fold=fold)


# The command


@pytest.mark.parametrize("option", [(), ("--dry-run",)])
def test_a_fold_that_cannot_be_combined_is_refused_before_anything_is_preprocessed(trained, tmp_path, option):
    base = (
        "train",
        "--data",
        trained / "data",
        "--config",
        trained / "quick.toml",
        "--out",
        tmp_path / "a.safetensors",
    )
    options = ("--fold", 2, "--hold-out", "LIDC-IDRI-0002", "--cache", tmp_path / "cache")
    done = run(*base, *options, *option)
    assert done.exit_code == 3
    assert "fold 2 holds out no labeled scan" in done.stderr
    assert not (tmp_path / "cache").exists()


@pytest.fixture(scope="module")
def trained(phantom, tmp_path_factory):
    """A folder of data and the networks of its two folds."""
    folder = tmp_path_factory.mktemp("folds")
    for name in ("LIDC-IDRI-0001", "LIDC-IDRI-0002"):
        write_phantom(phantom, folder / "data" / name, name=name)
    (folder / "quick.toml").write_text(QUICK_RECIPE + "[split]\nfolds = 2\nfold = 1\n")
    for fold in (1, 2):
        base = ("train", "--data", folder / "data", "--config", folder / "quick.toml", "--cache", folder / "cache")
        done = run(*base, "--fold", fold, "--out", folder / f"fold-{fold}.safetensors", "--threads", 1)
        assert done.exit_code == 0, done.output
    return folder


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def combine(trained, out, *folds, more=()):
    files = [trained / f"fold-{fold}.safetensors" for fold in folds]
    return run(
        "combine", *files, "--data", trained / "data", "--out", out, "--average-over", "D4", "--threads", 1, *more
    )


def test_the_folds_become_one_file(trained, tmp_path):
    out = tmp_path / "both.safetensors"
    done = combine(trained, out, 1, 2)
    assert done.exit_code == 0, done.output
    model = load_model(str(out))
    assert len(members_of(model.network)) == 2
    assert model.calibration.average_over == "D4"
    assert "training_patients" not in model.provenance
    assert model.provenance["counts"]["training_patients"] == 2
    names = json.loads((tmp_path / "both.run" / "data.json").read_text())
    assert names["training_patients"] == ["LIDC-IDRI-0001", "LIDC-IDRI-0002"]
    assert names["weights_sha256"] == model.sha256
    assert b"LIDC-IDRI" not in out.read_bytes()
    assert [m["sha256"] for m in model.provenance["members"]] == [
        load_model(str(trained / f"fold-{n}.safetensors")).sha256 for n in (1, 2)
    ]
    basis = model.provenance["out_of_fold"]
    assert basis["scans"] == 2
    assert model.provenance["validation"]["validation"]["cpm"] == basis["cpm"]
    assert basis["nodules_in_scans"] == 14
    assert "exists already" in combine(trained, out, 1, 2).stderr


def other_weights(trained, out, series):
    """Weights of the folds' shape that were trained on these series."""
    model = load_model(str(trained / "fold-2.safetensors"))
    names = {key: [] for key in sorted(NAME_KEYS)} | {"training_series": series, "training_patients": ["someone"]}
    save_model(replace(model, name="other", provenance=names), out)
    return out


def test_a_network_of_another_recipe_joins_the_folds(trained, tmp_path):
    out, other = tmp_path / "three.safetensors", other_weights(trained, tmp_path / "o.safetensors", ["LIDC-IDRI-0001"])
    done = combine(trained, out, 1, 2, more=("--with", other, "--share", 0.25))
    assert done.exit_code == 0, done.output
    assert "3 networks" in done.stderr
    model, joined = load_model(str(out)), load_model(str(other))
    assert shares_of(model.network) == (0.375, 0.375, 0.25)
    last = members_of(model.network)[-1].state_dict()
    assert all(torch.equal(last[name], value) for name, value in joined.network.state_dict().items())
    assert model.provenance["out_of_fold"]["scans"] == 1  # it has seen the other
    assert model.provenance["other"] == {"name": "other", "sha256": joined.sha256, "share": 0.25}
    assert "someone" in json.loads((tmp_path / "three.run" / "data.json").read_text())["training_patients"]


def test_each_fold_is_measured_with_the_network_that_joins(trained, tmp_path):
    fold, spec = read_fold(trained / "fold-1.safetensors"), InputSpec(side=64)
    other = read_other(str(other_weights(trained, tmp_path / "o.safetensors", [])), 0.25)
    assert shares_of(other.paired(fold.model).network) == (0.75, 0.25)
    with pytest.raises(InputError, match="differ in shape or input"):
        other.paired(replace(fold.model, input=spec))


def test_networks_that_cannot_join_are_refused(trained, tmp_path):
    out = tmp_path / "none.safetensors"
    seen = other_weights(trained, tmp_path / "o.safetensors", ["LIDC-IDRI-0001", "LIDC-IDRI-0002"])
    assert "trained on every labeled scan" in combine(trained, out, 1, 2, more=("--with", seen)).stderr
    assert "differ in shape or input" in combine(trained, out, 1, 2, more=("--with", "octahedral")).stderr
    assert "give the weights of a single network" in combine(trained, out, 1, 2, more=("--with", "committee")).stderr
    assert "must lie between 0 and 1" in combine(trained, out, 1, 2, more=("--with", seen, "--share", 1)).stderr
    assert "no weights named 'nothing'" in combine(trained, out, 1, 2, more=("--with", "nothing")).stderr
    assert not out.exists()


def test_what_is_no_committee_is_refused(trained, tmp_path):
    out = tmp_path / "none.safetensors"
    assert "one network for each of the 2 folds, got folds 1" in combine(trained, out, 1).stderr
    assert "one network for each of the 2 folds, got folds 1, 1" in combine(trained, out, 1, 1).stderr
    assert "not the weights of a fold" in run("combine", "octahedral", "--data", trained / "data", "--out", out).stderr
    assert "unknown group" in combine(trained, out, 1, 2, more=("--average-over", "C9")).stderr
    assert not out.exists()


def test_the_names_of_the_data_must_be_known(trained, tmp_path):
    alone = tmp_path / "fold-1.safetensors"
    shutil.copy(trained / "fold-1.safetensors", alone)
    done = run(
        "combine",
        alone,
        trained / "fold-2.safetensors",
        "--data",
        trained / "data",
        "--out",
        tmp_path / "n.safetensors",
    )
    assert "keep fold-1.run/data.json beside them" in done.stderr


def test_data_without_a_folds_scan_are_refused(trained, tmp_path):
    shutil.copytree(trained / "data" / "LIDC-IDRI-0002", tmp_path / "data")
    files = (trained / "fold-1.safetensors", trained / "fold-2.safetensors")
    done = run("combine", *files, "--data", tmp_path / "data", "--out", tmp_path / "none.safetensors")
    assert "fold-1: the data hold no labeled scan of its held-out patients" in done.stderr


def test_networks_that_hold_out_the_same_are_no_committee(trained):
    first, second = (read_fold(trained / f"fold-{n}.safetensors") for n in (1, 2))
    check_folds([first, second])
    with pytest.raises(InputError, match="hold out the same patients"):
        check_folds(
            [
                first,
                replace(
                    second, names={**second.names, "held_out_patients": ["LIDC-IDRI-0001"], "training_patients": []}
                ),
            ]
        )
    with pytest.raises(InputError, match="some held-out patients are also training patients"):
        check_folds([first, replace(second, names={**second.names, "training_patients": ["LIDC-IDRI-0002"]})])
    recipe = {**second.recipe, "train": {**second.recipe["train"], "steps": 7}}
    other = replace(second.model, provenance={**second.model.provenance, "recipe": recipe})
    with pytest.raises(InputError, match="were trained with different recipes"):
        check_folds([first, replace(second, model=other)])


def test_weights_of_another_version_are_refused_in_a_sentence(trained):
    fold = read_fold(trained / "fold-1.safetensors")
    recipe = {**fold.recipe, "samples": {**fold.recipe["samples"], "no_such_setting": 1}}
    other = replace(fold, model=replace(fold.model, provenance={**fold.model.provenance, "recipe": recipe}))
    with pytest.raises(InputError, match="another version of gcnn"):
        other.samples  # noqa: B018


def test_patients_whom_all_folds_hold_out_are_held_out_by_the_committee(trained):
    first, second = (read_fold(trained / f"fold-{n}.safetensors") for n in (1, 2))
    assert check_folds([first, second]) == set()
    named = [
        replace(fold, names={**fold.names, "held_out_patients": [*fold.names["held_out_patients"], "test"]})
        for fold in (first, second)
    ]
    with pytest.raises(InputError, match="hold out the same patients"):  # the recipe names none
        check_folds(named)
    for fold in named:
        fold.model.provenance["recipe"]["split"]["hold_out"] = 1
    assert check_folds(named) == {"test"}


def with_parent(trained, out, *parents):
    """The folds, as if they went on from parents with these data; their files and folders in `out`."""
    for fold, parent in enumerate(parents, start=1):
        model = load_model(str(trained / f"fold-{fold}.safetensors"))
        names = read_fold(trained / f"fold-{fold}.safetensors").names
        about = {**model.provenance, **names, "parent": {"name": "parent", "members": 1, **parent}}
        save_model(replace(model, provenance=about), out / f"fold-{fold}.safetensors")
    shutil.copytree(trained / "data", out / "data")
    return out


def test_what_a_folds_parent_has_seen_measures_nothing(trained, tmp_path):
    """It taught the network that holds these patients out."""
    seen, clean = ({"training_series": [s], "training_patients": [s]} for s in ("LIDC-IDRI-0001", "elsewhere"))
    (first, second) = (read_fold(trained / f"fold-{n}.safetensors").names["held_out_patients"] for n in (1, 2))
    assert (first, second) == (["LIDC-IDRI-0001"], ["LIDC-IDRI-0002"])
    folder = with_parent(trained, tmp_path, seen, clean)
    done = combine(folder, tmp_path / "both.safetensors", 1, 2)
    assert done.exit_code == 0, done.output
    model = load_model(str(tmp_path / "both.safetensors"))
    assert model.provenance["out_of_fold"]["scans"] == 1
    assert model.provenance["parent"]["training_patients"] == ["LIDC-IDRI-0001", "elsewhere"]


def test_parents_that_have_seen_all_are_refused_and_unknown_ones_named(trained, tmp_path, caplog):
    both = ["LIDC-IDRI-0001", "LIDC-IDRI-0002"]
    folder = with_parent(trained, tmp_path, *[{"training_series": both, "training_patients": both}] * 2)
    done = combine(folder, tmp_path / "both.safetensors", 1, 2)
    assert "went on from were trained on every labeled scan of the data" in done.stderr
    shutil.rmtree(tmp_path / "data")
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    done = combine(with_parent(trained, tmp_path, {}, {}), tmp_path / "both.safetensors", 1, 2)
    assert done.exit_code == 0
    assert "nothing says which patients its parent, parent, was trained on" in caplog.text


def test_a_joining_network_has_seen_what_its_parent_has(trained, tmp_path):
    path = other_weights(trained, tmp_path / "o.safetensors", ["x"])
    model = load_model(str(path))
    data = {"training_series": ["y"], "training_patients": ["else"]}
    save_model(replace(model, provenance={**model.provenance, "parent": data}), tmp_path / "p.safetensors")
    names = read_other(str(tmp_path / "p.safetensors"), 0.5).names
    assert (names["training_series"], names["training_patients"]) == (["x", "y"], ["else", "someone"])
    save_model(replace(model, provenance={**model.provenance, "parent": {"name": "p"}}), tmp_path / "u.safetensors")
    with pytest.raises(InputError, match="nothing says which patients its parent was trained on"):
        read_other(str(tmp_path / "u.safetensors"), 0.5)
