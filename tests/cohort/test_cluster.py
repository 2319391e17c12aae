"""Cohorts on worker processes: the files of one process, whatever becomes of the workers."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cohort.thin import contents, copy_scans, run_detect, summary_rows

from gcnn_cli.cohort.jobs import make_job, run_job
from gcnn_cli.cohort.request import Request
from gcnn_cli.cohort.scans import Scan
from gcnn_cli.detection.detector import Detector
from gcnn_cli.detection.proposals import load_proposer
from gcnn_cli.errors import DeviceError, ModelError, UsageError
from gcnn_cli.network.inference import make_scorer
from gcnn_cli.network.weights import load_model

distributed = pytest.importorskip("distributed", reason="Dask is not installed: install gcnn with its extra 'cluster'")

_STARTED_WITHIN_S = 180

# In every worker process: some scans are the end of it, as one that is too large for its memory would be.
DEADLY = """
import os, signal
from pathlib import Path
import gcnn_cli.cohort.jobs as jobs

harmless = jobs.__dict__.setdefault("harmless", jobs.detect)  # Dask loads this file twice

def detect(volume, *arguments, **options):
    died = Path({folder!r}) / volume.source.series_uid
    if {always!r} == died.name or ({once!r} == died.name and not died.exists()):
        with died.open("a") as file:
            file.write("died ")
        os.kill(os.getpid(), signal.SIGKILL)
    return harmless(volume, *arguments, **options)

jobs.detect = detect
"""

# In the process that starts the workers: a dead one's successor has everything loaded already.
READY = """
from distributed.utils import get_mp_context

get_mp_context().set_forkserver_preload(["distributed", "gcnn_cli.cohort.cluster"])
"""


@contextmanager
def running_cluster(folder, *options):
    """The address of a scheduler, and two workers that start in another folder than the tests."""
    place = folder / "scheduler.json"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment["DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD"] = "forkserver"
    (folder / "ready.py").write_text(READY)
    common = ["--scheduler-file", place, "--no-dashboard"]
    with ExitStack() as stack:

        def run(program, *more):
            command = [sys.executable, "-m", f"distributed.cli.dask_{program}", *map(str, (*common, *more))]
            process = subprocess.Popen(
                command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)

        run("scheduler", "--port", 0, "--host", "127.0.0.1")
        give_up = time.monotonic() + _STARTED_WITHIN_S
        while not place.exists():
            assert time.monotonic() < give_up
            time.sleep(0.05)
        run("worker", "--nworkers", 2, "--nthreads", 1, "--memory-limit", 0, "--preload-nanny", "ready.py", *options)
        address = json.loads(place.read_text())["address"]
        with distributed.Client(address, timeout=_STARTED_WITHIN_S) as client:
            client.wait_for_workers(2, timeout=_STARTED_WITHIN_S)
        yield address


@pytest.fixture(scope="module")
def single(thin, weights, tmp_path_factory):
    """What one process writes of the twenty scans."""
    out = tmp_path_factory.mktemp("single")
    assert run_detect(thin, "--model", weights, "--out", out, "-q").exit_code == 0
    return out


def test_two_workers_write_what_one_process_writes(thin, weights, single, tmp_path):
    done = run_detect(thin, "--model", weights, "--out", tmp_path / "out", "-q", "--workers", 2)
    assert (done.exit_code, done.output) == (0, "")
    assert contents(tmp_path / "out") == contents(single)  # bytes, and of JSON all but the seconds
    assert len(list(single.glob("*.nodules.csv"))) == 20


def test_a_dead_worker_loses_nothing(thin, weights, single, tmp_path, monkeypatch):
    """One scan kills its worker once, another always. Paths are relative, and the workers are in another folder."""
    monkeypatch.chdir(tmp_path)
    folder = Path("in")
    copy_scans(thin, folder, 4)
    died = tmp_path / "died"
    died.mkdir()
    (tmp_path / "deadly.py").write_text(DEADLY.format(folder=str(died), once="scan01", always="scan02"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with running_cluster(elsewhere, "--preload", str(tmp_path / "deadly.py")) as address:
        out = tmp_path / "out"
        done = run_detect(folder, "--model", weights, "--out", out, "-q", "--cluster", address)
    assert done.exit_code == 8, done.output + repr(done.exception)
    assert (died / "scan01").read_text().split() == ["died"]
    assert (died / "scan02").read_text().split() == ["died"] * 3
    rows = {row["result"]: row for row in summary_rows(out)}
    assert rows["scan00"]["path"] == "in/scan00.mhd"
    assert json.loads((out / "scan00.nodules.json").read_text())["input"]["path"] == "in/scan00.mhd"
    assert [name for name, row in rows.items() if row["status"] != "done"] == ["scan02"]
    assert rows["scan02"]["stage"] == "worker"
    assert "given up: 3 workers died" in rows["scan02"]["reason"]
    assert sorted(path.name for path in out.glob("*.csv")) == ["cohort.csv"] + [
        f"scan{n:02d}.nodules.csv" for n in (0, 1, 3)
    ]
    for path in out.glob("*.nodules.csv"):
        assert path.read_bytes() == (single / path.name).read_bytes()


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        (["--workers", "2", "--cluster", "tcp://a:1"], 2, "exclude each other"),
        (["--cluster", "nonsense"], 7, "nonsense: no Dask scheduler answers"),
        (["--workers", "0"], 2, "--workers"),
    ],
)
def test_clusters_that_cannot_be(thin, weights, tmp_path, options, code, text):
    done = run_detect(thin, "--model", weights, "--out", tmp_path / "out", *options)
    assert done.exit_code == code
    assert text in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_dask_one_line_says_what_to_install(thin, weights, monkeypatch):
    monkeypatch.setattr("gcnn_cli.cli.detect.find_spec", lambda name: None)
    done = run_detect(thin, "--model", weights, "--workers", 2)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "install gcnn with its extra 'cluster'" in done.stderr


def test_a_worker_that_would_search_otherwise_stops_the_cohort(thin, weights, monkeypatch):
    """Not a failure of each scan in turn: no worker may use up the cohort."""
    monkeypatch.setenv("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")  # a worker sets it; here it ends with the test
    from gcnn_cli.cohort.cluster import _detector, _run_on_worker, settings_for

    job = make_job(Scan(thin / "scan00.mhd", "scan00"), Request(("json",), None, 0.5), alone=False)
    good = settings_for(
        str(weights),
        load_model(str(weights)).sha256,
        device="cpu",
        average_over="trivial",
        proposals="proposals",
        threads=torch.get_num_threads(),
    )
    assert _run_on_worker(job, good).report is not None
    for settings, error, text in (
        (replace(good, sha256="0"), ModelError, "differs from the weights"),
        (replace(good, proposals_sha256="0"), ModelError, "proposals: differs from the weights"),
        (replace(good, version="0"), UsageError, "has gcnn .* install one version"),
        (replace(good, model="/none"), ModelError, "no weights named"),
        (replace(good, device="cuda:77"), DeviceError, "not available"),
        (replace(good, average_over="C9"), ModelError, "unknown group"),
    ):
        with pytest.raises(error, match=f"worker on .*{text}"):
            _run_on_worker(job, settings)
    _detector.cache_clear()


def test_weights_are_named_so_that_every_folder_has_them(weights, monkeypatch):
    from gcnn_cli.cohort.cluster import settings_for

    monkeypatch.chdir(weights.parent)
    options = {"sha256": "", "device": "cpu", "average_over": "trivial", "proposals": "proposals", "threads": None}
    assert settings_for(weights.name, **options).model == str(weights)
    assert settings_for("octahedral", **options).model == "octahedral"


def test_paths_are_those_of_who_asks_in_any_folder(thin, weights, tmp_path, monkeypatch):
    shutil.copy(thin / "scan00.mhd", tmp_path / "lost.mhd")  # without its voxels
    model = load_model(str(weights))
    detector = Detector(model, make_scorer(model.network, torch.device("cpu")), load_proposer(torch.device("cpu")))
    for root, name in ((thin, "scan01"), (tmp_path, "lost")):
        request = Request((), None, 0.5, root=root)
        monkeypatch.chdir(root)
        at_home = run_job(make_job(Scan(Path(f"{name}.mhd"), name), request, alone=False), detector)
        monkeypatch.chdir("/")
        away = run_job(make_job(Scan(Path(f"{name}.mhd"), name), request, alone=False), detector)
        if away.failure:
            reason = "lost.mhd: its data file 'scan00.zraw' is missing"
            assert str(away.failure.error) == str(at_home.failure.error) == reason
        else:
            assert away.report.scan == at_home.report.scan
            assert away.report.scan.source.path == "scan01.mhd"


def test_workers_of_this_machine_keep_the_memory_that_they_free():
    from gcnn_cli.cohort.cluster import _local_client

    with _local_client(1) as client:
        environment = client.submit(lambda: dict(os.environ)).result()
    assert int(environment["MALLOC_TRIM_THRESHOLD_"]) >= 2**28
    assert int(environment["MALLOC_MMAP_THRESHOLD_"]) >= 2**28
