"""The command line: each command parses its options, makes one call and reports errors.

Heavy imports are inside the commands. stdout carries results only; progress, warnings and errors go to stderr.
"""

import io
import sys

from gcnn_cli.cli import (
    combine,
    convert,
    detect,
    evaluate,
    export,
    follow,
    inspect,
    learning_curve,
    phantom,
    train,
    train_proposals,
    view,
)
from gcnn_cli.cli.app import app

__all__ = [
    "app",
    "combine",
    "convert",
    "detect",
    "evaluate",
    "export",
    "follow",
    "inspect",
    "learning_curve",
    "main",
    "phantom",
    "train",
    "train_proposals",
    "view",
]


def main() -> None:
    """Run the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character that the encoding lacks must not end a batch
            stream.reconfigure(errors="backslashreplace")
    app()
