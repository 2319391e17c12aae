"""Recipes: they survive their file, and what cannot be is refused by its name, before anything is trained."""

import pytest

from gcnn_cli.errors import GcnnError, InputError
from gcnn_cli.network.architecture import FIELDS
from gcnn_cli.training.recipe import read_recipe, recipe_text

CASES = {
    "not a number": ("[train]\nlearning_rate = nan", "learning_rate in .train. is 'nan', not a number"),
    "without an end": ("[augment]\nnoise_hu = inf", "not a number"),
    "a text": ('[train]\nsteps = "7"', "not a whole number"),
    "a list of texts": ('[network]\nfields = ["2", "2"]', "must be integers"),
    "a list of lists": ("[network]\npool_after = [[1]]", "must be integers"),
    "a list for a group": ('[network]\ngroup = ["O"]', "group in .network. is .*, not a text"),
    "a table for a group": ("[network]\ngroup = {}", "not a text"),
    "a list for a number": ("[samples]\nsubset = [1]", "subset in .samples. is .*, not a whole number"),
    "a negative subset": ("[samples]\nsubset = -1", "must not be negative, got -1"),
    "two spacings": ("[input]\nspacing_mm = 2.0", "spacing_mm is 1 in .samples. and 2 in .input."),
    "patients by number": ("[split]\nhold_out = [7]", "a patient of hold_out"),
    "a share": ("[split]\nshare = 1.5", "between 0 and 1"),
    "a negative seed of the split": ("[split]\nseed = -1", r"recipe.toml: .split. must have a seed .* got -1"),
    "a patch larger than its cube": (
        "[input]\nside = 64",
        r"recipe.toml: side is 64 in .input. and 48 in .samples.",
    ),
    "a patch higher than its box": (
        "[input]\nside = [32, 16, 16]\n[samples]\nside = [24, 24, 24]\n"
        "[augment]\nturn_group = 'D4h'\n[network]\ngroup = 'D4h'",
        r"recipe.toml: side is .32, 16, 16. in .input. and 24 in .samples.",
    ),
    "samples of no size": ("[samples]\nside = 0", "a side from 4"),
    "negative counts": ("[samples]\nshams_per_scan = -1", "counts of 0 or more"),
    "shares of augmentation": ("[augment]\nslab_share = 2.0", "shares from 0 to 1"),
    "negative ranges": ("[augment]\nshift_mm = -1.0", "ranges of at least 0"),
    "scale": ("[augment]\nscale = 1.0", "a scale from 0"),
    "a group of augmentation": ('[augment]\nturn_group = "C5"', "unknown group"),
    "a rate of nothing": ("[train]\nlearning_rate = 0.0", "learning_rate .0.0. > 0"),
    "thousands of digits": ("[train]\nseed = " + "9" * 5000, "not TOML"),
    "endless nesting": ("[train]\nseed = " + "[" * 100_000, "not TOML"),
}


@pytest.mark.parametrize(("text", "message"), CASES.values(), ids=CASES)
def test_values_that_cannot_be_are_refused(tmp_path, text, message):
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(GcnnError, match=message) as refusal:
        read_recipe(tmp_path / "recipe.toml")
    assert len(str(refusal.value)) < 600


def test_the_default_recipe_is_within_all_ranges(tmp_path):
    (tmp_path / "recipe.toml").write_text(recipe_text(read_recipe(None)))
    assert read_recipe(tmp_path / "recipe.toml") == read_recipe(None)


def test_a_recipe_survives_its_file(tmp_path):
    recipe = read_recipe(
        None, {"network": {"group": "Oh"}, "split": {"hold_out": ('a "b" \\ c',)}, "train": {"seed": 3}}
    )
    (tmp_path / "r.toml").write_text(recipe_text(recipe))
    assert read_recipe(tmp_path / "r.toml") == recipe


@pytest.mark.parametrize("patient", ["a\tb", "a\nb", "\x00", "\x1b[31m", "\x7f", '"""', "\u2028", "é\\u0041"])
def test_a_patient_with_control_characters_survives_its_file(tmp_path, patient):
    recipe = read_recipe(None, {"split": {"hold_out": (patient,)}})
    (tmp_path / "r.toml").write_bytes(recipe_text(recipe).encode())
    assert read_recipe(tmp_path / "r.toml") == recipe


def test_fields_follow_the_group_and_the_side_the_input(tmp_path):
    assert read_recipe(None, {"network": {"group": "trivial"}}).train.network.fields == FIELDS["trivial"]
    (tmp_path / "r.toml").write_text('[network]\ngroup = "O"\nfields = [1, 2]\npool_after = [1]\n[input]\nside = 16\n')
    recipe = read_recipe(tmp_path / "r.toml", {"network": {"group": None}, "train": {"steps": 7}})
    assert (recipe.train.network.fields, recipe.train.network.side, recipe.train.steps) == ((1, 2), 16, 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tran]\nsteps = 1\n", r"unknown section \[tran\]"),
        ("[train]\nstep = 1\n", r"unknown key step in \[train\]"),
        ('[train]\nsteps = "many"\n', "steps in .train. is 'many', not a whole number"),
        ("[train]\nsteps = 0\n", "steps"),
        ("steps = 3\n", "unknown section"),
        ("[train\n", "not TOML"),
        ("[network]\nside = 16\n", "side is 16 in .network. and 32 in .input."),
        ("[train]\nnetwork = 3\n", "unknown key network"),
    ],
)
def test_unusable_recipes_are_refused(tmp_path, text, message):
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_recipe(tmp_path / "r.toml")
