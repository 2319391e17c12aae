"""Predictions in another frame are noticed; those of a detector that finds nothing, or something, are not."""

import numpy as np
import pytest
from typer.testing import CliRunner

from gcnn_cli.cli import app
from gcnn_cli.labels.frames import frame_warning
from gcnn_cli.labels.marks import Marks

RANDOM = np.random.default_rng(0)
NAMES = tuple(f"s{n % 5}" for n in range(20))
PLACES = RANDOM.uniform((-120, -200, -300), (120, 60, 0), (20, 3))
NODULES = Marks(NAMES, PLACES, np.full(20, 8.0))


def marks(places) -> Marks:
    return Marks(NAMES, np.asarray(places, float), np.ones(len(places)))


FRAMES = {
    "RAS": (PLACES * [-1, -1, 1], "100% would be with x and y negated, as from RAS to LPS"),
    "z, y, x": (PLACES[:, ::-1], "100% would be in the order z, y, x:"),
    "RAS as z, y, x": (PLACES[:, ::-1] * [1, -1, -1], "in the order z, y, x with x and y negated"),
    "voxels": ((PLACES + np.array([120, 200, 300])) / [0.7, 0.7, 2.5], "the predictions look like voxel indices"),
}


@pytest.mark.parametrize(("places", "words"), FRAMES.values(), ids=FRAMES)
def test_a_frame_is_named(places, words):
    warning = frame_warning(marks(places), NODULES)
    assert words in warning
    assert "0% of the nodules are hit" in warning
    assert "LPS mm, x, y, z" in warning


def test_a_reference_in_voxels_is_named():
    nodules = Marks(NAMES, (PLACES + np.array([120, 200, 300])) / [0.7, 0.7, 2.5], np.full(20, 8.0))
    assert "the reference looks like voxel indices" in frame_warning(marks(PLACES), nodules)


@pytest.mark.parametrize(
    "places", [PLACES, PLACES + np.array([3, 0, 0]), RANDOM.uniform(-300, 300, (20, 3)), PLACES + np.array([20, 0, 0])],
    ids=["right", "near", "anywhere", "beside"],
)  # fmt: skip
def test_the_right_frame_and_a_poor_detector_are_left_alone(places):
    assert frame_warning(marks(places), NODULES) == ""


def test_scans_of_their_own_and_empty_tables_are_left_alone():
    elsewhere = Marks(tuple("x" for _ in NAMES), PLACES, np.ones(20))
    assert frame_warning(elsewhere, NODULES) == ""
    assert frame_warning(Marks((), np.zeros((0, 3)), np.zeros(0)), NODULES) == ""


def table(path, places, column, value):
    rows = [f"{name},{x},{y},{z},{value}" for name, (x, y, z) in zip(NAMES, places, strict=True)]
    path.write_text("\n".join([f"seriesuid,coordX,coordY,coordZ,{column}", *rows]) + "\n")
    return str(path)


def run(tmp_path, places, *options):
    tables = (
        table(tmp_path / "p.csv", places, "probability", 0.5), table(tmp_path / "a.csv", PLACES, "diameter_mm", 8),
    )  # fmt: skip
    words = ("evaluate", "--predictions", tables[0], "--annotations", tables[1], "--bootstraps", "10", *options)
    return CliRunner().invoke(app, words)


def test_the_command_warns_and_the_file_says_so(tmp_path):
    done = run(tmp_path, PLACES * [-1, -1, 1], "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.stderr.splitlines() if "negated" in line]
    assert line.startswith("warning: 0% of the nodules are hit")
    assert "negated" in (tmp_path / "out" / "froc.json").read_text()
    assert "negated" not in run(tmp_path, PLACES).stderr


def test_an_id_with_the_ending_of_a_file_is_refused_with_the_right_one(tmp_path):
    text = table(tmp_path / "p.csv", PLACES, "probability", 0.5)
    (tmp_path / "p.csv").write_text((tmp_path / "p.csv").read_text().replace("s0,", "s0.mhd,"))
    words = ("evaluate", "--predictions", text, "--annotations", table(tmp_path / "a.csv", PLACES, "diameter_mm", 8))
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 3
    assert "predictions for series s0.mhd, which the reference calls s0; write it so" in done.stderr
