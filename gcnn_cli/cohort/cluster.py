"""A cohort spread over processes and machines by Dask. Scans go out as paths; reports and rendered files come back.

Every worker must see the scans under the same paths as the client, the process that submits the jobs. Nothing else is
shared, and only the client writes. A worker loads the weights once and runs one job at a time on all of its threads.

Each job is submitted to one idle worker by name. Dask's own scheduler would queue jobs at workers and move them
around. A scan that kills its worker, by its size for example, would then also count against the scans that wait
behind it, and after a few deaths Dask gives up all of them. Here the fatal scan is known: it is tried on other
workers and given up after the third death.
"""

import logging
import socket
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import dask
from distributed import CancelledError, Client, Future, KilledWorker, LocalCluster, get_worker, wait

from gcnn_cli import __version__
from gcnn_cli.cohort.jobs import Failure, Runner, ScanJob, ScanResult, run_job
from gcnn_cli.detection.detector import Detector, make_detector
from gcnn_cli.detection.stages import Stage
from gcnn_cli.errors import DeviceError, GcnnError, ModelError, UsageError
from gcnn_cli.network.devices import choose_device, cpu_cores, use_threads
from gcnn_cli.network.proposal_weights import load_proposal_model
from gcnn_cli.network.weights import find_weights, load_model

log = logging.getLogger("gcnn")

_DEATHS = 3
_LOOK_EVERY_S = 1.0
_FETCH_WITHIN_S = 60.0
# Dask has its workers hand freed memory back to the system at once. Every layer would fault its maps in anew, which
# doubles the time of a scan.
_MALLOC = {"MALLOC_ARENA_MAX": 1, "MALLOC_TRIM_THRESHOLD_": 1 << 30, "MALLOC_MMAP_THRESHOLD_": 1 << 30}
_CONNECT_WITHIN = "10s"
_LOST = (OSError, TimeoutError, CancelledError)  # Dask raises these when a scheduler no longer answers
_SCHEDULER_IS_GONE = "lost the connection to the Dask scheduler; finished results are written, --resume continues"


@dataclass(frozen=True)
class DetectorSettings:
    """Settings from which a worker makes its detector. threads: None for the number the worker was started with."""

    model: str
    sha256: str
    device: str
    average_over: str
    proposals: str
    proposals_sha256: str
    threads: int | None
    version: str = __version__


def settings_for(
    model: str, sha256: str, *, device: str, average_over: str, proposals: str, threads: int | None
) -> DetectorSettings:
    """Return settings that are valid in any folder: shipped weights by name, others by absolute path.

    Raises ModelError for missing or damaged weights of the proposals.
    """
    proposing = load_proposal_model(proposals)
    return DetectorSettings(
        _anywhere(model), sha256, device, average_over, _anywhere(proposals), proposing.sha256, threads
    )


def _anywhere(weights: str) -> str:
    path = find_weights(weights)
    return str(path.absolute()) if path == Path(weights) else weights


@contextmanager
def run_on_cluster(settings: DetectorSettings, *, address: str | None = None, workers: int = 1) -> Iterator[Runner]:
    """Yield a runner on the cluster of a scheduler, or on worker processes of this machine that share its cores.

    Raises DeviceError when no scheduler answers. The runner raises it when the scheduler is lost.
    """
    with ExitStack() as stack:
        _silence_dask()
        client = stack.enter_context(_local_client(workers) if address is None else _remote_client(address))
        if not _workers(client):
            log.warning("%s: no workers yet; waiting for one", address)
        yield lambda jobs: _run_all(client, jobs, settings)


def _silence_dask() -> None:
    """Mute Dask's loggers, several of which set a level of their own. Failures are reported here, in one line each."""
    for name in [*logging.root.manager.loggerDict]:
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _remote_client(address: str) -> Client:
    try:
        return Client(address, timeout=_CONNECT_WITHIN)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(f"{address}: no Dask scheduler answers ({reason})") from None


@contextmanager
def _local_client(workers: int) -> Iterator[Client]:
    with (
        dask.config.set({"distributed.nanny.pre-spawn-environ": _MALLOC}),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=max(1, cpu_cores() // workers),
            processes=True,
            memory_limit=None,  # Dask would kill a worker that exceeds its share of the memory, as large scans do
            dashboard_address="127.0.0.1:0",  # any free port, on this machine only
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _run_all(
    client: Client, jobs: Iterable[ScanJob], settings: DetectorSettings
) -> Iterator[tuple[ScanJob, ScanResult]]:
    waiting = deque(jobs)
    running: dict[str, tuple[Future[ScanResult], ScanJob]] = {}
    deaths: Counter[int] = Counter()
    try:
        while waiting or running:
            workers = _workers(client)
            for worker in workers - running.keys():
                if waiting:
                    job = waiting.popleft()
                    future = client.submit(_run_on_worker, job, settings, pure=False, workers=[worker])
                    running[worker] = future, job
            _wait_for_one([future for future, _ in running.values()])
            ended = [worker for worker, (future, _) in running.items() if worker not in workers or future.done()]
            for worker in ended:
                future, job = running.pop(worker)
                if result := _result(future):
                    yield job, result
                    continue
                deaths[job.number] += 1
                if deaths[job.number] < _DEATHS:
                    waiting.appendleft(job)
                else:
                    yield job, _given_up(job)
    finally:
        with suppress(*_LOST):
            client.cancel([future for future, _ in running.values()])


def _workers(client: Client) -> set[str]:
    """Return the addresses of the live workers. Raises DeviceError when the scheduler is lost."""
    try:
        return set(client.nthreads())
    except _LOST:
        raise DeviceError(_SCHEDULER_IS_GONE) from None


def _wait_for_one(futures: list[Future[ScanResult]]) -> None:
    """Wait until one of the futures is done, or until it is time to look for dead workers."""
    with suppress(TimeoutError, CancelledError):
        if futures:
            wait(futures, timeout=_LOOK_EVERY_S, return_when="FIRST_COMPLETED")
        else:
            time.sleep(_LOOK_EVERY_S)


def _result(future: Future[ScanResult]) -> ScanResult | None:
    """Return the result of a job, None when its worker died.

    Raises what no scan causes: a worker without the weights, a lost scheduler.
    """
    if future.status == "cancelled":
        raise DeviceError(_SCHEDULER_IS_GONE)
    if future.status == "pending":
        return None
    try:
        result: ScanResult = future.result(timeout=_FETCH_WITHIN_S)
    except (TimeoutError, KilledWorker):
        return None
    except ImportError as error:
        raise DeviceError(f"a worker cannot run detection: {error}; install the same gcnn-cli everywhere") from None
    return result


def _given_up(job: ScanJob) -> ScanResult:
    reason = f"given up: {_DEATHS} workers died while they worked on it (out of memory?)"
    return ScanResult(failure=Failure(Stage.WORKER, DeviceError(reason, path=job.scan.path)))


def _run_on_worker(job: ScanJob, settings: DetectorSettings) -> ScanResult:
    try:
        detector = _detector(settings)
    except GcnnError as error:
        raise type(error)(f"worker on {socket.gethostname()}: {error}") from None
    return run_job(job, detector)


@lru_cache(maxsize=1)
def _detector(settings: DetectorSettings) -> Detector:
    """Return this worker's detector. Raises GcnnError where it would differ from the client's."""
    if settings.version != __version__:
        raise UsageError(f"has gcnn {__version__}, the client {settings.version}; install one version everywhere")
    use_threads(settings.threads or get_worker().state.nthreads)
    trained = load_model(settings.model)
    if trained.sha256 != settings.sha256:
        raise ModelError("differs from the weights on the machine that started the cohort", path=settings.model)
    device = choose_device(settings.device)
    detector = make_detector(trained, device, average_over=settings.average_over, proposals=settings.proposals)
    if detector.proposer.model.sha256 != settings.proposals_sha256:
        raise ModelError("differs from the weights on the machine that started the cohort", path=settings.proposals)
    return detector
