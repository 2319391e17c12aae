"""`gcnn view` from outside, and labels of a review on their way into weights."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import webbrowser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from output.reports import report_of
from review.results import session_of, some_cases
from training.recipes import QUICK_RECIPE
from typer.testing import CliRunner

from gcnn_cli.cli import app
from gcnn_cli.network.weights import load_model
from gcnn_cli.output.json_format import report_json
from gcnn_cli.review.cases import find_cases
from gcnn_cli.review.server import Server
from gcnn_cli.scan.writing import write_metaimage

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return some_cases(tmp_path_factory.mktemp("command"))


@pytest.fixture
def view(cases, tmp_path):
    """Start the command; the process, its address and the open connection's server."""
    started = []

    def start(*arguments):
        command = [sys.executable, "-m", "gcnn_cli", "view", *map(str, arguments), "--no-open"]
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell that starts the tests in the background has its programs ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        started.append(process)
        return process, process.stdout.readline().strip()

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def overview(address):
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=20)
    connection.request("GET", f"{place.path}overview")
    content = json.loads(connection.getresponse().read())
    connection.close()
    return content


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_address_serves_and_stops(view, cases, tmp_path, number):
    process, address = view(cases[0].result)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{43}/", address)
    assert overview(address)["cases"][0]["name"] == "flipped"
    second, line = view(cases[0].result)
    assert (second.wait(20), line) == (2, "")
    assert "reviews as 'reader' in review already" in second.stderr.read()
    process.send_signal(number)
    assert process.wait(20) == 0
    assert process.stdout.read() == ""
    assert [line for line in process.stderr.read().splitlines() if line] == [
        "For research use only. Not a medical device; not for diagnosis.",
        "1 scan; the review of reader goes to review; stop with Ctrl-C",
        "stopped",
    ]
    assert [path.name for path in (tmp_path / "review").iterdir()] == ["reviews"]  # looking leaves no labels


def test_the_browser_is_given_no_address_that_others_can_list(cases, tmp_path, monkeypatch):
    """All users of a machine see the arguments of its programs; the token is in a page of the owner's instead."""
    opened = []

    def look(address):
        page = Path(unquote(urlsplit(address).path))
        opened.append((address, page.parent, page.stat().st_mode & 0o777, page.read_text()))

    def stop(server):
        raise KeyboardInterrupt

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(webbrowser, "open", look)
    monkeypatch.setattr(Server, "serve_forever", stop)
    out = tmp_path / "my review"
    done = CliRunner().invoke(app, ["view", str(cases[0].result), "--out", str(out), "-q"])
    assert done.exit_code == 0, done.output
    ((address, folder, mode, text),) = opened
    assert address.startswith("file:///")
    token = urlsplit(done.stdout.strip()).path.strip("/")
    assert token not in address
    assert f"{token}/" in text
    assert (folder, mode) == (out, 0o600)
    assert [path.name for path in out.iterdir()] == ["reviews"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["nothing.json"], 3, "nothing.json: cannot be read"),
        (["{result}", "--reader", "../me"], 2, "--reader '../me'"),
        (["{result}", "--scan", "gone.mhd"], 3, "give its place with --scan"),
        (["{result}", "--out", "{labels}"], 2, "annotations.csv exists already and is of no review"),
        (["{scans}"], 3, "holds no result"),
    ],
)
def test_what_cannot_be_reviewed_is_refused_in_one_line(cases, tmp_path, arguments, code, text):
    (tmp_path / "annotations.csv").write_text("mine\n")
    names = {"result": cases[0].result, "scans": cases[0].scan.parent, "labels": tmp_path}
    done = CliRunner().invoke(app, ["view", *(argument.format(**names) for argument in arguments), "--no-open", "-q"])
    assert (done.exit_code, done.stdout) == (code, "")
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (tmp_path / "annotations.csv").read_text() == "mine\n"
    assert [path.name for path in tmp_path.iterdir()] == ["annotations.csv"]


@pytest.mark.slow
def test_a_review_becomes_weights(phantom, tmp_path):
    """Findings are confirmed and corrected, and `gcnn train --data` learns from exactly these."""
    write_metaimage(phantom.volume, tmp_path / "scans" / "thorax.mhd")
    volume = phantom.volume
    report = report_of(volume, [nodule.position_mm for nodule in phantom.nodules[:5]])
    data = json.loads(report_json(report))
    data["input"] |= {"seriesuid": "thorax", "path": str(tmp_path / "scans" / "thorax.mhd")}
    (tmp_path / "thorax.nodules.json").write_text(json.dumps(data))
    session = session_of(find_cases([tmp_path / "thorax.nodules.json"]), tmp_path / "review")
    keys = [entry["key"] for entry in session.review(0)["entries"]]
    for key, nodule in zip(keys[:3], phantom.nodules, strict=False):
        session.decide(0, {"kind": "resize", "key": key, "diameter_mm": nodule.diameter_mm})
    session.decide(0, {"kind": "reject", "key": keys[3]})
    session.decide(0, {"kind": "unsure", "key": keys[4]})
    missed = phantom.nodules[5]
    session.decide(0, {"kind": "add", "position_mm": list(missed.position_mm), "diameter_mm": missed.diameter_mm})
    session.decide(0, {"kind": "finish", "threshold": 0.0})
    (tmp_path / "quick.toml").write_text(QUICK_RECIPE)
    out = tmp_path / "new.safetensors"
    folders = ["--data", tmp_path / "scans", "--data", tmp_path / "review"]
    arguments = [
        "train",
        *folders,
        "--out",
        out,
        "--config",
        tmp_path / "quick.toml",
        "--hold-out-share",
        0,
        "--strict",
    ]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    assert load_model(str(out)).provenance["samples"]["mark"] == 4
