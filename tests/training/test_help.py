"""The help of `gcnn train` and `gcnn learning-curve` states the defaults that a run without options has."""

import pytest
from typer.main import get_command

from gcnn_cli.cli import app
from gcnn_cli.training.recipe import read_recipe

RECIPE = read_recipe(None)
DEFAULTS = {
    "group": RECIPE.train.network.group,
    "steps": RECIPE.train.steps,
    "seed": RECIPE.train.seed,
    "hold_out_share": RECIPE.split.share,
    "split_seed": RECIPE.split.seed,
}


@pytest.mark.parametrize(
    ("command", "names"),
    [("train", DEFAULTS), ("learning-curve", ("steps", "hold_out_share", "split_seed"))],
)
def test_help_states_the_defaults_of_the_recipe(command, names):
    options = {option.name: option.help for option in get_command(app).commands[command].params}
    for name in names:
        assert f"(default: {DEFAULTS[name]})" in options[name]
