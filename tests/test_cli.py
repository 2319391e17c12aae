"""The command line from outside: what is printed where, which code it ends with, what is left on disk."""

import csv
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import SimpleITK as sitk
from conftest import make_network
from scan.scans import axial, some_hu, write_series
from typer.testing import CliRunner

from gcnn_cli import NOTICE, __version__
from gcnn_cli.cli import app
from gcnn_cli.network.contract import Calibration, InputSpec
from gcnn_cli.network.proposal_weights import ProposalModel, save_proposal_model
from gcnn_cli.network.proposals import ProposalNetwork, ProposalNetworkConfig
from gcnn_cli.network.weights import TrainedModel, save_model
from gcnn_cli.output.json_format import report_schema
from gcnn_cli.phantom import quick_config, write_phantom

GCNN = [sys.executable, "-c", "from gcnn_cli.cli import main; main()"]


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A small random network: quick, and as wrong as can be."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    calibration = Calibration(threshold=0.0, operating_points=((1.0, 0.99),))
    spec = InputSpec(spacing_mm=2.0, side=8)
    save_model(TrainedModel("small", make_network("O"), spec, calibration), path)
    return path


@pytest.fixture(scope="session")
def scans(phantom, tmp_path_factory):
    """A folder with the coarse phantom as MetaImage and DICOM."""
    folder = tmp_path_factory.mktemp("scans")
    write_phantom(phantom, folder, dicom=True)
    return folder


@pytest.fixture
def run(weights, tmp_path, monkeypatch):
    """Run a command in an empty folder, with the small weights for detect."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        extra = ["--model", str(weights)] if arguments[0] == "detect" and "--model" not in arguments else []
        return CliRunner().invoke(app, [*map(str, arguments), *extra], catch_exceptions=True)

    return call


def error_line(result, code):
    """The one line on stderr of a refused command; stdout must be empty."""
    assert result.exit_code == code, result.output + repr(result.exception)
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if line and line != NOTICE]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def test_detect_writes_csv_and_json_and_shows_a_table(run, scans, tmp_path):
    result = run("detect", scans / "thorax.mhd")
    assert result.exit_code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thorax.nodules.csv", "thorax.nodules.json"]
    data = json.loads((tmp_path / "thorax.nodules.json").read_text())
    jsonschema.validate(data, report_schema())
    rows = list(csv.DictReader(io.StringIO((tmp_path / "thorax.nodules.csv").read_text())))
    assert len(rows) == len(data["nodules"]) > 10  # threshold 0: every lesion
    assert "probability" in result.stdout
    assert NOTICE in result.stderr
    assert data["input"]["seriesuid"] == "thorax"
    assert {n["sop_instance_uid"] for n in data["nodules"]} == {""}


def test_detect_streams_json_to_stdout(run, scans, tmp_path):
    result = run("detect", scans / "thorax.mhd", "--out", "-")
    jsonschema.validate(json.loads(result.stdout), report_schema())
    assert list(tmp_path.iterdir()) == []


def test_several_scans_are_json_lines_and_one_failure_does_not_stop_them(run, scans, tmp_path):
    bad = tmp_path / "bad.mha"
    bad.write_text("hello")
    result = run("detect", scans / "thorax.mhd", bad, scans / "thorax_dicom", "--out", "-", "--threshold", "0.5")
    assert result.exit_code == 8
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert [r["input"]["kind"] for r in reports] == ["metaimage", "dicom"]
    assert "bad.mha" in result.stderr
    assert "1 of 3 scans failed" in result.stderr
    # The same patient from both formats.
    first, second = (np.array([n["position_mm"] for n in r["nodules"]]) for r in reports)
    assert np.allclose(first, second, atol=0.1)
    assert all(n["sop_instance_uid"] for n in reports[1]["nodules"])


def test_no_nodules_is_a_result(run, scans, tmp_path):
    result = run("detect", scans / "thorax.mhd", "--fp-per-scan", "1")
    assert result.exit_code == 0
    assert "No nodules" in result.stdout
    assert len((tmp_path / "thorax.nodules.csv").read_text().splitlines()) == 1
    assert json.loads((tmp_path / "thorax.nodules.json").read_text())["nodules"] == []


def test_results_are_not_replaced_unasked(run, scans, tmp_path):
    assert run("detect", scans / "thorax.mhd", "-q").exit_code == 0
    before = (tmp_path / "thorax.nodules.json").read_bytes()
    assert "exists already" in error_line(run("detect", scans / "thorax.mhd"), 2)
    assert (tmp_path / "thorax.nodules.json").read_bytes() == before
    assert run("detect", scans / "thorax.mhd", "--overwrite").exit_code == 0


def test_resume_skips_what_is_done_and_replaces_nothing_unasked(run, scans, tmp_path):
    run("detect", scans / "thorax.mhd", "-q")
    path = tmp_path / "thorax.nodules.json"
    before = path.stat().st_mtime_ns
    again = run("detect", scans / "thorax.mhd", "--resume")
    assert (again.exit_code, again.stdout) == (0, "")
    assert path.stat().st_mtime_ns == before
    other = ("detect", scans / "thorax.mhd", "--resume", "--threshold", "0.5")
    assert "was made with another threshold;" in error_line(run(*other), 2)
    assert path.stat().st_mtime_ns == before
    assert run(*other, "--overwrite").exit_code == 0
    assert path.stat().st_mtime_ns > before
    path.unlink()  # as an interrupt between two files leaves it
    assert run(*other).exit_code == 0
    json.loads(path.read_text())
    path.write_text("damaged")
    assert "exists and is damaged;" in error_line(run(*other), 2)


def test_two_runs_find_the_same(run, scans):
    first, second = (json.loads(run("detect", scans / "thorax.mhd", "--out", "-").stdout) for _ in range(2))
    assert first["nodules"] == second["nodules"]


def test_a_lung_mask_says_where_to_look(run, scans, phantom, tmp_path):
    left = phantom.lungs.copy()
    left[:, :, : left.shape[2] // 2] = False  # the patient's right side
    middle = phantom.volume.position_mm(np.array([0, 0, left.shape[2] // 2]))[0]
    image = sitk.GetImageFromArray(left.astype(np.uint8))
    image.CopyInformation(sitk.ReadImage(str(scans / "thorax.mhd")))
    sitk.WriteImage(image, str(tmp_path / "mask.nii.gz"))
    result = run("detect", scans / "thorax.mhd", "--out", "-", "--lung-mask", "mask.nii.gz")
    nodules = json.loads(result.stdout)["nodules"]
    assert nodules
    assert all(n["position_mm"][0] > middle - 3 for n in nodules)
    sitk.WriteImage(image * 0, str(tmp_path / "empty.nii.gz"))
    assert "does not cover" in error_line(run("detect", scans / "thorax.mhd", "--lung-mask", "empty.nii.gz"), 3)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["nothing.mhd"], 3, "no such file or folder"),
        (["SCAN", "--format", "xml"], 2, "unknown format 'xml'"),
        (["SCAN", "--threshold", "0.5", "--fp-per-scan", "1"], 2, "exclude each other"),
        (["SCAN", "--fp-per-scan", "3"], 2, "stored: 1"),
        (["SCAN", "--model", "nothing"], 6, "no weights named 'nothing'"),
        (["SCAN", "--proposals", "nothing"], 6, "no weights named 'nothing'"),
        (["SCAN", "--proposals", "octahedral"], 6, "weights of format 1; must be format 3"),
        (["SCAN", "--device", "cuda:77"], 7, "not available"),
        (["SCAN", "--device", "abacus"], 7, "unknown device 'abacus'"),
        (["SCAN", "--series", "#1"], 2, "--series"),
        (["SCAN", "--resume", "--format", "csv"], 2, "--resume needs the JSON"),
        (["SCAN", "SCAN"], 2, "would both write"),
        (["SCAN", "--average-over", "C9"], 6, "unknown group"),
        (["SCAN", "--lung-mask", "none.mha"], 3, "no such file"),
    ],
)
def test_refusals_are_one_line_with_their_code(run, scans, tmp_path, arguments, code, text):
    arguments = [str(scans / "thorax.mhd") if a == "SCAN" else a for a in arguments]
    assert text in error_line(run("detect", *arguments), code)
    assert list(tmp_path.iterdir()) == []


def test_usage_errors_are_typers_own(run):
    for arguments in (["detect"], ["detect", "x", "--threshold", "2"], ["nonsense"]):
        assert run(*arguments).exit_code == 2


def test_an_output_folder_that_cannot_be(run, scans, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in error_line(run("detect", scans / "thorax.mhd", "--out", "file"), 9)


@pytest.mark.parametrize("arguments", [["phantom", "--nodules", "0"], ["train", "--data", "."]])
def test_other_commands_that_cannot_write(run, tmp_path, arguments, quick_phantom):
    (tmp_path / "file").write_text("")
    result = run(*arguments, "--out", "file/new/w.safetensors")
    assert result.exit_code == 9
    assert "cannot be written" in result.stderr


def test_two_series_and_geometry_have_their_codes(run, scans, tmp_path):
    both = tmp_path / "both"
    shutil.copytree(scans / "thorax_dicom", both)
    (both / "0030.dcm").unlink()
    assert "is the series complete?" in error_line(run("detect", both), 5)
    write_series(both, some_hu(), axial())
    assert "2 CT series found" in error_line(run("detect", both), 4)


def test_info_lists_series_and_verdict(run, scans):
    result = run("info", scans / "thorax_dicom", "--json")
    (row,) = json.loads(result.stdout)
    assert row["number"] == "#1"
    assert row["geometry"].startswith("sound: ")
    assert "slices, 2.5 mm apart" in row["geometry"]
    assert "sound" in run("info", scans / "thorax.mhd").stdout
    assert "no such file" in error_line(run("info", "nothing"), 3)


def test_verify_prints_every_element(run, weights):
    result = run("verify", weights)
    assert result.exit_code == 0
    assert "invariant" in result.stderr
    rows = json.loads(run("verify", weights, "--json").stdout)
    assert len(rows) == 24
    assert max(row["error"] for row in rows) <= 1e-5


def test_verify_fails_for_a_network_that_is_not(run, tmp_path):
    path = tmp_path / "plain.safetensors"
    save_model(TrainedModel("plain", make_network("trivial"), InputSpec(side=8), Calibration()), path)
    result = run("verify", path, "--group", "O")
    assert result.exit_code == 6
    assert "not invariant" in result.stderr


def test_verify_knows_that_a_proposal_networks_map_turns_with_the_patch(run, tmp_path):
    rows = json.loads(run("verify", "proposals", "--json").stdout)
    assert len(rows) == 24
    assert max(row["error"] for row in rows) <= 1e-5
    path = tmp_path / "plain.safetensors"
    config = ProposalNetworkConfig(group="trivial", fields=(2, 2, 2, 2))
    save_proposal_model(ProposalModel("plain", ProposalNetwork(config).eval(), InputSpec(side=16)), path)
    result = run("verify", path, "--group", "O")
    assert result.exit_code == 6
    assert "not equivariant under O" in result.stderr


@pytest.fixture
def quick_phantom(monkeypatch):
    """`gcnn phantom` on a coarse grid."""
    monkeypatch.setattr("gcnn_cli.phantom.PhantomConfig", lambda seed, nodules: quick_config(seed, nodules=nodules))


def test_phantom_makes_a_labelled_scan(run, tmp_path, quick_phantom):
    assert run("phantom", "--out", "made", "--nodules", "2").exit_code == 0
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == ["annotations.csv", "thorax.mhd", "thorax.zraw"]
    assert "exists already" in error_line(run("phantom", "--out", "made"), 2)


def test_version_and_help(run):
    assert run("--version").stdout == f"gcnn {__version__}\n"
    assert "Exit codes" in run("detect", "--help").stdout


def test_options_come_from_the_environment_too(run, scans, monkeypatch):
    monkeypatch.setenv("GCNN_OUT", "-")
    monkeypatch.setenv("GCNN_THRESHOLD", "0.9999")
    assert json.loads(run("detect", scans / "thorax.mhd").stdout)["threshold"] == 0.9999


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (MemoryError(), 7, "this machine ran out of memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."),
            7,
            "out of memory",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "w.pt"), 9, "w.pt: cannot be written: No space left"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 9, "x: cannot be read or written: Permission denied"),
        (OSError(errno.ENOSPC, "No space left on device"), 9, "stdout: cannot be written: No space left on device"),
    ],
)
def test_errors_of_the_system_are_one_line(run, scans, monkeypatch, error, code, text):
    """Wherever they come from; what is neither clearly reading nor clearly writing is not called either."""

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("gcnn_cli.network.weights.load_model", fail)
    assert text in error_line(run("detect", scans / "thorax.mhd"), code)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), OSError("nothing known"), KeyError("x")])
def test_a_bug_keeps_its_traceback(run, scans, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("gcnn_cli.network.weights.load_model", fail)
    result = run("detect", scans / "thorax.mhd")
    assert result.exception is error
    assert result.exit_code == 1


def test_a_file_name_cannot_command_the_terminal(run, scans, tmp_path):
    """In what is said of files that are no scans, too."""
    folder = tmp_path / "in"
    shutil.copytree(scans, folder)
    (folder / "\x1b[2Jnotes\n.txt").write_text("")
    result = run("detect", folder, "--out", "out", "--threshold", "0.9")
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert "\\x1b[2Jnotes\\n.txt: not a scan" in result.stderr


# Whole processes


def start(*arguments, **options):
    return subprocess.Popen(
        [*GCNN, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_a_closed_pipe_is_no_traceback(scans, weights):
    process = start("detect", scans / "thorax.mhd", "--model", weights, "--out", "-", "-q")
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 141


def test_the_package_is_the_command():
    done = subprocess.run([sys.executable, "-m", "gcnn_cli", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"gcnn {__version__}\n", "")


def test_no_color_and_no_bar_in_a_pipe(scans, weights, tmp_path):
    process = start("detect", scans / "thorax.mhd", "--model", weights, cwd=tmp_path)
    out, err = process.communicate()
    assert process.returncode == 0
    assert "\x1b" not in out + err
    assert [line for line in err.splitlines() if line] == [NOTICE]


def test_an_interrupt_leaves_nothing_half_written(scans, tmp_path):
    # With the shipped weights, which have seconds of scoring before them when the signal comes.
    def hear() -> None:  # a suite in the background of a shell hands down that SIGINT is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = start("detect", scans / "thorax.mhd", "-v", cwd=tmp_path, env={**os.environ}, preexec_fn=hear)
    for line in process.stderr:
        if "lungs" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted"  # ours, in one line: Typer's own handler would say something else
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_full_disk_behind_stdout_is_one_line():
    command = [sys.executable, "-c", "from gcnn_cli.cli import main; main()", "info", "--system"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (9, "error: stdout: cannot be written: No space left on device\n")


def test_what_looks_like_markup_is_text(run, tmp_path):
    def edit(_, dataset):
        dataset.SeriesDescription = "Lung [/b50f] :skull:"

    write_series(tmp_path / "series", some_hu(), axial(), edit=edit)
    result = run("info", tmp_path / "series")
    assert result.exit_code == 0
    assert "Lung [/b50f] :skull:" in result.stdout


def test_info_lists_a_folder_in_which_one_slice_cannot_be_read(run, tmp_path):
    whole = write_series(tmp_path / "a", some_hu(), axial(), series="1.2.3.1")
    broken = write_series(tmp_path / "b", some_hu(), axial(), series="1.2.3.2")
    (broken / "copy.dcm").write_bytes((broken / "003.dcm").read_bytes()[:-20])
    rows = json.loads(run("info", tmp_path, "--json").stdout)
    assert [row["geometry"].partition(":")[0] for row in rows] == ["sound", "refused"]
    assert "copy.dcm: its pixels cannot be read" in rows[1]["geometry"]
    assert whole.is_dir()


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_narrow_encoding_ends_no_command(scans, tmp_path, encoding):
    """Windows writes cp1252 to a file. In tables the other characters are escaped; JSON is in UTF-8 everywhere."""
    for file in scans.glob("thorax.*raw"):
        shutil.copy(file, tmp_path)
    shutil.copy(scans / "thorax.mhd", tmp_path / "Пациент.mhd")
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    command = [sys.executable, "-m", "gcnn_cli", "info", tmp_path / "Пациент.mhd"]
    table, as_json = (
        subprocess.run([*command, *more], env=environment, capture_output=True, check=True).stdout
        for more in ((), ("--json",))
    )
    assert rb"\u041f" in table
    assert json.loads(as_json.decode("utf-8"))[0]["seriesuid"] == "Пациент"
