"""Graceful stops: a long run that is asked to stop does so at a step from which it can continue."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stop_requests() -> Iterator[Callable[[], int]]:
    """Turn SIGTERM and Ctrl-C into requests, and yield a function that returns the signal's number, 0 without one.

    The run asks between two steps. A second signal acts at once, as it would without this context.
    """
    received: list[int] = []
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def receive(number: int, _: object) -> None:
        received.append(number)
        signal.signal(number, previous[signal.Signals(number)])

    for number in previous:
        signal.signal(number, receive)
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
