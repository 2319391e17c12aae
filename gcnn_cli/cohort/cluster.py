"""A cohort spread over processes and machines by Dask: scans go out, what was found in them comes back.

The scans must be seen by every worker under the path that the asking machine has for them; nothing else is shared,
and only the asking process writes. A worker loads the weights once and searches one scan at a time with all of its
threads.

Each scan is handed to one idle worker by name. Left to Dask's own scheduler, scans would queue at workers and be moved
between them, and one that makes its worker die, by its size say, would bring those under suspicion that wait behind
it: after a few deaths Dask gives up all of them. So it is known here which scan a worker died of; that one is tried
on others, and given up after the third.
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

from distributed import CancelledError, Client, Future, KilledWorker, LocalCluster, get_worker, wait

from gcnn_cli import __version__
from gcnn_cli.cohort.jobs import Failure, Job, Outcome, Search, search
from gcnn_cli.detection.detector import Detector, make_detector
from gcnn_cli.errors import DeviceError, GcnnError, ModelError, UsageError
from gcnn_cli.network.devices import choose_device, cpu_cores, use_threads
from gcnn_cli.network.weights import find_weights, load_model

log = logging.getLogger("gcnn")

_DEATHS = 3
_LOOK_EVERY_S = 1.0
_FETCH_WITHIN_S = 60.0
_CONNECT_WITHIN = "10s"
_LOST = (OSError, TimeoutError, CancelledError)  # what Dask raises when a scheduler does not answer any more
_SCHEDULER_IS_GONE = (
    "the connection to the Dask scheduler was lost; what is done is written, --resume goes on from there"
)


@dataclass(frozen=True)
class DetectorSettings:
    """From what a worker makes its detector. threads: None for as many as the worker was started with."""

    model: str
    sha256: str
    device: str
    average_over: str
    threads: int | None
    version: str = __version__


def settings_for(model: str, sha256: str, *, device: str, average_over: str, threads: int | None) -> DetectorSettings:
    """Settings that mean the same in any folder: shipped weights by their name, others by their whole path."""
    path = find_weights(model)
    return DetectorSettings(
        str(path.absolute()) if path == Path(model) else model, sha256, device, average_over, threads
    )


@contextmanager
def cluster_search(settings: DetectorSettings, *, address: str | None = None, workers: int = 1) -> Iterator[Search]:
    """A Search on the cluster of a scheduler, or on worker processes of this machine that share its cores.

    Raises DeviceError when no scheduler answers, and while searching when it is lost.
    """
    with ExitStack() as stack:
        _silence_dask()
        client = stack.enter_context(_local_client(workers) if address is None else _remote_client(address))
        if not _workers(client):
            log.warning("%s: no workers yet; waiting for some", address)
        yield lambda jobs: _search_all(client, jobs, settings)


def _silence_dask() -> None:
    """What matters of what happens is told here, in one line; several of Dask's loggers have a level of their own."""
    for name in [*logging.root.manager.loggerDict]:
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _remote_client(address: str) -> Client:
    try:
        return Client(address, timeout=_CONNECT_WITHIN)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(f"{address}: no Dask scheduler answers there ({reason})") from None


@contextmanager
def _local_client(workers: int) -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=max(1, cpu_cores() // workers),
            processes=True,
            memory_limit=None,  # Dask would kill a worker at its share of the memory, which the scans do not keep to
            dashboard_address="127.0.0.1:0",  # any free port, for this machine only
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _search_all(client: Client, jobs: Iterable[Job], settings: DetectorSettings) -> Iterator[tuple[Job, Outcome]]:
    waiting = deque(jobs)
    running: dict[str, tuple[Future[Outcome], Job]] = {}
    deaths: Counter[int] = Counter()
    try:
        while waiting or running:
            workers = _workers(client)
            for worker in workers - running.keys():
                if waiting:
                    job = waiting.popleft()
                    future = client.submit(_search_on_worker, job, settings, pure=False, workers=[worker])
                    running[worker] = future, job
            _wait_for_one([future for future, _ in running.values()])
            ended = [worker for worker, (future, _) in running.items() if worker not in workers or future.done()]
            for worker in ended:
                future, job = running.pop(worker)
                if outcome := _outcome(future):
                    yield job, outcome
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
    """Addresses of the workers that are alive. Raises DeviceError when the scheduler is not."""
    try:
        return set(client.nthreads())
    except _LOST:
        raise DeviceError(_SCHEDULER_IS_GONE) from None


def _wait_for_one(futures: list[Future[Outcome]]) -> None:
    """Until one of the futures is done, or it is time to see whether the workers are alive."""
    with suppress(TimeoutError, CancelledError):
        if futures:
            wait(futures, timeout=_LOOK_EVERY_S, return_when="FIRST_COMPLETED")
        else:
            time.sleep(_LOOK_EVERY_S)


def _outcome(future: Future[Outcome]) -> Outcome | None:
    """What came back; None when the worker died before it did.

    Raises what is no scan's fault: a worker without the weights, a scheduler that is gone.
    """
    if future.status == "cancelled":
        raise DeviceError(_SCHEDULER_IS_GONE)
    if future.status == "pending":
        return None
    try:
        outcome: Outcome = future.result(timeout=_FETCH_WITHIN_S)
    except (TimeoutError, KilledWorker):
        return None
    except ImportError as error:
        raise DeviceError(f"a worker cannot search: {error}; install the same gcnn-cli on all of them") from None
    return outcome


def _given_up(job: Job) -> Outcome:
    text = f"{job.scan.path}: given up: {_DEATHS} workers died while they searched it (out of memory?)"
    return Outcome(failure=Failure("worker", DeviceError(text)))


def _search_on_worker(job: Job, settings: DetectorSettings) -> Outcome:
    try:
        detector = _detector(settings)
    except GcnnError as error:
        raise type(error)(f"worker on {socket.gethostname()}: {error}") from None
    return search(job, detector)


@lru_cache(maxsize=1)
def _detector(settings: DetectorSettings) -> Detector:
    """This worker's detector. Raises GcnnError where it would not be the one that the client means."""
    if settings.version != __version__:
        raise UsageError(f"has gcnn {__version__}, and {settings.version} asks; install one version everywhere")
    use_threads(settings.threads or get_worker().state.nthreads)
    trained = load_model(settings.model)
    if trained.sha256 != settings.sha256:
        raise ModelError("other weights here than where the cohort was started", path=settings.model)
    return make_detector(trained, choose_device(settings.device), average_over=settings.average_over)
