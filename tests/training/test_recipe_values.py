"""Recipes: a value of the wrong kind or out of range is refused by its name, before anything is trained."""

import pytest

from gcnn_cli.errors import GcnnError
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
