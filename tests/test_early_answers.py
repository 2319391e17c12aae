"""What can be known without torch is answered before torch, which takes seconds, is loaded."""

import os
import subprocess
import sys

import pytest

from gcnn_cli.cli.checks import GROUPS
from gcnn_cli.network.weights import models_folder
from gcnn_cli.symmetry.groups import GENERATORS

RUN = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "SimpleITK", "skimage", "matplotlib"):
            raise AssertionError(f"{name} was loaded")
sys.meta_path.insert(0, Refuse())
from gcnn_cli.cli import main
main()
"""
MODEL = str(models_folder() / "octahedral.safetensors")
ANSWERS = {  # arguments with {scan}, {here}, {made} (an existing file), the exit code, a part of the line
    "no such scan": ("detect {here}/nope.mhd", 3, "nope.mhd: no such file or folder"),
    "several missing scans": ("detect {here}/nope.mhd {here}/no.mhd", 3, "nope.mhd: not found, nor any other of the 2"),
    "a folder without scans": ("detect {here}/empty", 3, "no DICOM series in this folder"),
    "not a scan": ("detect {here}/made.txt", 3, "not a supported scan"),
    "a header that is damaged": ("detect {here}/bad.mhd", 3, "not a MetaImage header, or damaged"),
    "series of an image": ("detect {scan} --series 1.2", 2, "--series chooses among DICOM series"),
    "no such series": ("detect {dicom} --series 1.2", 3, "no series 1.2; there are 1"),
    "no such device": ("detect {scan} --device gpu", 7, "unknown device 'gpu'"),
    "no such group": ("detect {scan} --average-over O3", 6, "unknown group 'O3'"),
    "no such weights": ("detect {scan} --model nope", 6, "no weights named 'nope'"),
    "no such format": ("detect {scan} --format pdf", 2, "unknown format 'pdf'"),
    "no such mask": ("detect {scan} --lung-mask {here}/nope.nii", 3, "nope.nii: no such file"),
    "an existing output": ("detect {scan} --out {here}/full", 2, "thorax.nodules.csv exists already"),
    "sr of an image": ("detect {scan} --format sr", 2, "a DICOM SR refers to a DICOM series"),
    "a number that is none": ("detect {scan} --threshold much", 2, "Invalid value for '--threshold'"),
    "info of nothing": ("info {here}/nope", 3, "nope: no such file or folder"),
    "verify without weights": ("verify nope", 6, "no weights named 'nope'"),
    "verify with no such group": ("verify --group O3", 6, "unknown group 'O3'"),
    "an existing plot": ("verify --plot {here}/made.txt", 2, "made.txt exists already"),
    "training on nothing": ("train --data {here}/nope --out {here}/w.safetensors", 3, "nope: no such folder"),
    "training over weights": ("train --data {here} --out {model}", 2, "octahedral.safetensors exists already"),
    "training on no device": ("train --data {here} --out {here}/w.safetensors --device gpu", 7, "unknown device"),
    "training of no group": ("train --data {here} --out {here}/w.safetensors --group O3", 2, "unknown group 'O3'"),
    "proposals on nothing": ("train-proposals --data {here}/nope --out {here}/w.safetensors", 3, "no such folder"),
    "combining nothing": ("combine {here}/nope --data {here} --out {here}/w.safetensors", 6, "no weights named"),
    "a curve of nothing": ("learning-curve --data {here}/nope --out {here}/c", 3, "nope: no such folder"),
    "evaluation on nothing": ("evaluate --data {here}/nope", 3, "nope: no such folder"),
    "evaluation of no table": (
        "evaluate --predictions {here}/nope.csv --annotations {here}/made.txt", 3, "nope.csv",
    ),
    "exporting nothing": ("export nope", 6, "no weights named 'nope'"),
    "exporting over a file": ("export --out {here}/made.txt", 2, "made.txt exists already"),
    "following nothing": ("follow {here}/nope {scan}", 3, "nope: no such file or folder"),
    "following to nothing": ("follow {scan} {here}/nope.json", 3, "nope.json: no such file or folder"),
    "following what is no result": ("follow {here}/made.json {scan}", 3, "not a JSON file"),
    "following to what is no scan": ("follow {scan} {here}/made.txt", 3, "not a supported scan"),
    "following on no device": ("follow {scan} {dicom} --device gpu", 7, "unknown device 'gpu'"),
    "following with no weights": ("follow {scan} {dicom} --model nope", 6, "no weights named 'nope'"),
    "following over a file": ("follow {here}/a.mha {here}/b.mha --out {here}/full", 2, "follow.csv exists already"),
    "viewing nothing": ("view {here}/nope.json", 3, "nope.json: cannot be read"),
    "converting nothing": ("convert {here}/nope.json --format csv", 3, "nope.json: cannot be read"),
    "converting without the scan": ("convert {here}/made.txt --format html --scan {here}/nope", 3, "no such file"),
}  # fmt: skip


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("early")
    for name in ("empty", "full"):
        (folder / name).mkdir()
    for name in ("made.txt", "made.json"):
        (folder / name).write_text("x" * 600)
    for name in ("thorax.nodules.csv", "a_to_b.follow.csv"):
        (folder / "full" / name).write_text("")
    (folder / "bad.mhd").write_text("NDims = 3\n")
    return folder


@pytest.mark.parametrize("case", ANSWERS)
def test_the_answer_needs_no_torch(here, root, sample, case):
    command, code, reason = ANSWERS[case]
    words = command.format(here=here, scan=sample, dicom=sample.parent / "thorax_dicom", model=MODEL).split()
    done = subprocess.run(
        [sys.executable, "-c", RUN, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=here / "empty",
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert "was loaded" not in done.stderr, done.stderr[-2000:]
    assert (done.returncode, done.stdout) == (code, "")
    assert reason in " ".join(done.stderr.replace("│", " ").split())


def test_the_groups_that_are_checked_early_are_all_in_space():
    assert tuple(name for name, (dimension, _) in GENERATORS.items() if dimension == 3) == GROUPS
