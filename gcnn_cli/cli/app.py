"""The Typer application of all commands: shared options, exit codes, logging and consoles."""

import errno
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from gcnn_cli import NOTICE, __version__
from gcnn_cli.errors import DeviceError, GcnnError, OutputError, is_out_of_memory, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

EXIT_CODES = (
    "Exit codes: 0 done, with or without nodules · 1 a bug · 2 invalid usage · 3 input unreadable or not a chest CT ·"
    " 4 several series, none chosen · 5 invalid geometry · 6 weights missing or altered · 7 device"
    " unavailable or out of memory · 8 some scans of a batch failed · 9 a file cannot be written ·"
    " 130 interrupted."
)
_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)


class ErrorGroup(TyperGroup):
    """Turn expected failures into one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The reader of stdout has gone. Python must not fail again when it flushes stdout at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from None
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(130) from None
        except Exception as error:
            expected = _expected(error)
            if expected is None:  # a bug keeps its traceback
                raise
            echo_error(expected)
            raise typer.Exit(expected.exit_code) from None


def _expected(error: Exception) -> GcnnError | None:
    """Return an error as an expected failure; None for a bug.

    Reading raises InputError and writing a result OutputError, each in its place. Of the other system errors only
    those that nothing but writing can cause are called that; an error of stdout names no file.
    """
    if isinstance(error, GcnnError):
        return error
    if is_out_of_memory(error):
        return DeviceError("this machine ran out of memory")
    if isinstance(error, OSError) and error.errno in (*_WRITE_ERRORS, errno.EIO) and error.filename is None:
        return OutputError(f"cannot be written: {error.strerror}", path="stdout")
    if isinstance(error, OSError) and error.filename is not None:
        verb = "written" if error.errno in _WRITE_ERRORS else "read or written"
        return OutputError(f"cannot be {verb}: {error.strerror}", path=error.filename)
    return None


app = typer.Typer(
    cls=ErrorGroup,
    help="Find pulmonary nodules in chest CT with 3D group-equivariant CNNs. " + NOTICE,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ModelOption = Annotated[
    str, typer.Option("--model", "-m", envvar="GCNN_MODEL", help="Name of shipped weights, or path of a weights file.")
]
ProposalsOption = Annotated[
    str,
    typer.Option(
        "--proposals",
        envvar="GCNN_PROPOSALS",
        help="Network that proposes candidates: name of shipped weights, or path of a weights file.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", envvar="GCNN_OVERWRITE", help="Replace existing files.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", envvar="GCNN_QUIET", help="Print only errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", envvar="GCNN_VERBOSE", help="Log every stage.")]
AllowGaps = Annotated[
    bool,
    typer.Option(
        "--allow-gaps",
        envvar="GCNN_ALLOW_GAPS",
        help="Interpolate across small gaps of a DICOM series, with a warning, instead of refusing it.",
    ),
]
Device = Annotated[str, typer.Option(envvar="GCNN_DEVICE", help="auto, cpu, cuda, cuda:N or mps.")]
HoldOut = Annotated[list[str] | None, typer.Option("--hold-out", help="Patient to keep out of training; repeatable.")]
StrictData = Annotated[
    bool, typer.Option("--strict", help="Refuse data with missing, unreadable or doubtful scans and labels.")
]
NameData = Annotated[
    bool,
    typer.Option(
        "--name-data",
        help="Name series and patients in the weights file, for leakage checks on public data (default: counts).",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Threads = Annotated[
    int | None, typer.Option(min=1, envvar="GCNN_THREADS", help="Number of CPU threads. Default: all cores.")
]


def _show_version(requested: bool) -> None:
    if requested:
        typer.echo(f"gcnn {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    del version  # handled by its callback


def start(quiet: bool, verbose: bool, threads: int | None = None) -> "Console":
    """Set up logging and, where a number is given, threads, which loads torch. Return the console for stderr."""
    level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("gcnn").setLevel(level)
    if threads is not None:
        from gcnn_cli.network.devices import use_threads

        use_threads(threads)
    return console(stderr=True, quiet=quiet)


def console(*, stderr: bool, quiet: bool = False) -> "Console":
    """Return a rich console. Off a terminal it has no colors and no progress bar, and is 200 columns wide.

    What looks like markup is text: it comes from file names and headers.
    """
    from rich.console import Console

    make = partial(Console, stderr=stderr, quiet=quiet, markup=False, emoji=False)
    console = make()
    return console if console.is_terminal else make(width=200)


def shown_in(status: "Status") -> Callable[[str], None]:
    """Return a function that shows a line of progress as it is, without markup."""
    from rich.text import Text

    return lambda line: status.update(Text(line))


def echo_json(text: str) -> None:
    """Print JSON to stdout in UTF-8, whatever the terminal's encoding is: JSON has no other (RFC 8259)."""
    typer.echo(text.encode(), nl=False)


def echo_error(error: GcnnError) -> None:
    """Print an error to stderr, on one line."""
    echo(f"error: {error}")


def echo(line: str) -> None:
    """Print a line to stderr. Control characters and line breaks in it are escaped: file names may hold them."""
    typer.echo(printable(line), err=True)
