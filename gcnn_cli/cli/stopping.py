"""Long work that is asked to stop does so where it can go on later."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def wish_to_stop() -> Iterator[Callable[[], int]]:
    """SIGTERM and Ctrl-C become a wish (the signal's number), heard between two steps; a second one is not held."""
    heard: list[int] = []
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def hear(number: int, _: object) -> None:
        heard.append(number)
        signal.signal(number, previous[signal.Signals(number)])

    for number in previous:
        signal.signal(number, hear)
    try:
        yield lambda: heard[0] if heard else 0
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
