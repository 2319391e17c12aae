"""`gcnn view`: look through scans with their findings, and review them."""

import os
import signal
import sys
import tempfile
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from gcnn_cli import NOTICE
from gcnn_cli.cli.app import EXIT_CODES, Quiet, Verbose, app, echo, start
from gcnn_cli.errors import InputError
from gcnn_cli.files import writing


@app.command(epilog=EXIT_CODES)
def view(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULT...", help=".nodules.json files written by gcnn detect, or folders that hold such files."
        ),
    ],
    scan: Annotated[
        Path | None,
        typer.Option(
            help="The scan of the result; for several results, a folder that holds their scans. Default: the paths"
            " that the results name.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", envvar="GCNN_REVIEW", help="Folder for the review and its tables.")
    ] = Path("review"),
    reader: Annotated[
        str, typer.Option(envvar="GCNN_READER", help="Name of the reader; each reader has a review of their own.")
    ] = "reader",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1. Default: any free one.")] = 0,
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the address without opening a browser.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Look through scans with their findings in a browser, and accept, reject, correct or add nodules.

    The page is served on this machine alone, until Ctrl-C. --out takes labels for gcnn train and gcnn evaluate.
    """
    for path in results:
        if not path.exists():
            raise InputError("cannot be read: no such file or folder", path=path)

    from gcnn_cli.review.cases import find_cases
    from gcnn_cli.review.server import Server
    from gcnn_cli.review.session import Session
    from gcnn_cli.review.store import Store
    from gcnn_cli.review.tables import check_tables

    start(quiet, verbose, None)
    cases = find_cases(results, scan)
    store = Store(out, reader)
    check_tables(out)
    with store.claimed(), Server(Session(cases, store), port) as server:
        if not quiet:
            typer.echo(NOTICE, err=True)
            for case in cases:
                if case.problem:
                    echo(f"warning: {case.problem}")
            count = "1 scan" if len(cases) == 1 else f"{len(cases)} scans"
            echo(f"{count}; the review of {reader} goes to {out}; stop with Ctrl-C")
        typer.echo(server.address)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with nullcontext() if no_open or not _has_screen() else _opened(server.address, out):
                server.serve_forever()
        except KeyboardInterrupt:  # the way to stop it; every decision is on the disk
            typer.echo("stopped", err=True)


@contextmanager
def _opened(address: str, folder: Path) -> Iterator[None]:
    """Open an address in the browser by a page that leads to it, which its owner alone can read.

    All users of a machine see the arguments of its programs, and the address holds the token. The page lies in the
    folder of the review since browsers in a sandbox, such as Ubuntu's, read no temporary or hidden folders.
    """
    with writing(folder):
        number, name = tempfile.mkstemp(prefix="open-", suffix=".html", dir=folder)
    page = Path(name).resolve()
    try:
        with writing(page), os.fdopen(number, "w") as file:
            file.write(f'<!doctype html><meta http-equiv="refresh" content="0; url={address}">\n')
        webbrowser.open(page.as_uri())
        yield
    finally:
        page.unlink(missing_ok=True)


def _has_screen() -> bool:
    """Return whether a browser has a screen to open on. Without one, a browser for terminals would take this one."""
    return sys.platform in ("win32", "darwin") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
