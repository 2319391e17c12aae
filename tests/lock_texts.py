"""Locks as other processes leave them."""

import tempfile
from functools import lru_cache
from pathlib import Path

from gcnn_cli.locks import claimed


@lru_cache(maxsize=1)
def _this_host() -> str:
    """This host as locks name it; in a container with more than its name."""
    with tempfile.TemporaryDirectory() as folder, claimed(Path(folder) / "a.lock"):
        return (Path(folder) / "a.lock").read_text().splitlines()[1]


def signed(number: int, host: str = "", began: int | None = None) -> str:
    """The text of a lock as its owner signs it."""
    lines = [str(number), host or _this_host(), *([] if began is None else [str(began)])]
    return "".join(f"{line}\n" for line in lines)
