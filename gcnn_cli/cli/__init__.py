"""The command line: options in, one call, errors out. Heavy imports live inside the commands.

stdout carries results only; progress, warnings and errors go to stderr.
"""

from gcnn_cli.cli import combine, convert, detect, evaluate, inspect, learning_curve, phantom, train, train_proposals
from gcnn_cli.cli.app import app

__all__ = [
    "app",
    "combine",
    "convert",
    "detect",
    "evaluate",
    "inspect",
    "learning_curve",
    "main",
    "phantom",
    "train",
    "train_proposals",
]


def main() -> None:
    """Entry point of the console script."""
    app()
