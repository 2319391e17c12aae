"""The application that the commands join: shared options, errors to exit codes, logging and consoles."""

import errno
import logging
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from gcnn_cli import NOTICE, __version__
from gcnn_cli.errors import GcnnError, OutputError

if TYPE_CHECKING:
    from rich.console import Console

EXIT_CODES = (
    "Exit codes: 0 done, with or without nodules · 1 a bug · 2 usage · 3 input unreadable or not a chest CT ·"
    " 4 several series and none chosen · 5 geometry refused · 6 weights missing or altered · 7 device"
    " unavailable or out of memory · 8 some scans of a batch failed · 9 a result cannot be written ·"
    " 130 interrupted."
)
_FULL = (errno.ENOSPC, errno.EIO, errno.EDQUOT)  # of stdout, whose errors name no file
DEFAULT_MODEL = "octahedral"


class ErrorGroup(TyperGroup):
    """Turns expected failures into one line and an exit code, in one place."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except GcnnError as error:  # only ours: a bug keeps its traceback
            echo_error(error)
            raise typer.Exit(error.exit_code) from None
        except BrokenPipeError:
            # The reader of our output has gone: nobody is left to tell, not even when Python flushes at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from None
        except OSError as error:  # inputs report theirs as InputError: what is left is writing
            if error.filename is None and error.errno not in _FULL:
                raise
            echo_error(OutputError(f"{error.filename or 'stdout'}: cannot be written: {error.strerror}"))
            raise typer.Exit(OutputError.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=ErrorGroup,
    help="Find pulmonary nodules in chest CT with 3D group-equivariant CNNs. " + NOTICE,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ModelOption = Annotated[
    str, typer.Option("--model", "-m", envvar="GCNN_MODEL", help="Shipped name or path of a weights file.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", envvar="GCNN_OVERWRITE", help="Replace files that exist.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", envvar="GCNN_QUIET", help="Only errors on stderr.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", envvar="GCNN_VERBOSE", help="Tell each step.")]
AllowGaps = Annotated[
    bool,
    typer.Option(
        "--allow-gaps",
        envvar="GCNN_ALLOW_GAPS",
        help="Interpolate over small gaps of a DICOM series, with a warning, instead of refusing it.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout instead of a table.")]
Threads = Annotated[int | None, typer.Option(min=1, envvar="GCNN_THREADS", help="CPU threads; all cores by default.")]


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"gcnn {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    del version  # its callback has done the work


def start(quiet: bool, verbose: bool, threads: int | None) -> "Console":
    """Logging, threads and the console for stderr, as the options say."""
    level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("gcnn").setLevel(level)
    if threads is not None:
        from gcnn_cli.network.devices import use_threads

        use_threads(threads)
    return console(stderr=True, quiet=quiet)


def console(*, stderr: bool, quiet: bool = False) -> "Console":
    """A rich console: no color or bar when it is not a terminal, wide when it is a pipe."""
    from rich.console import Console

    console = Console(stderr=stderr, quiet=quiet)
    return console if console.is_terminal else Console(stderr=stderr, quiet=quiet, width=200)


def echo_error(error: GcnnError) -> None:
    """One line on stderr, whatever the names of files hold: line breaks and control characters are shown escaped."""
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in f"error: {error}")
    typer.echo("".join(shown), err=True)
