"""The command line: each command parses its options, makes one call and reports errors.

Heavy imports are inside the commands. stdout carries results only; progress, warnings and errors go to stderr.
"""

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
    app()
