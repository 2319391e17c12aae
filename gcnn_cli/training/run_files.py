"""The files of a training run: weights `NAME.safetensors`, and a folder `NAME.run` for everything else."""

from pathlib import Path

from gcnn_cli.errors import UsageError
from gcnn_cli.network.weight_files import SUFFIX


def run_folder(weights: Path) -> Path:
    """Return the folder in which the run that makes a weights file keeps everything else."""
    return weights.with_suffix(".run")


def checkpoint_path(weights: Path, member: int = 0) -> Path:
    """Return the path of the checkpoint of the run that makes a weights file.

    member: of a committee whose members are trained one after the other, from 0
    """
    return run_folder(weights) / (f"checkpoint-{member + 1}.pt" if member else "checkpoint.pt")


def check_run_files(weights: Path, *, overwrite: bool, resume: bool) -> None:
    """Raise UsageError for a name without the right ending, and for files that the run must not replace."""
    if weights.suffix != SUFFIX:
        raise UsageError(f"{weights}: the name of a weights file must end in {SUFFIX}")
    if weights.exists() and not overwrite:
        raise UsageError(f"{weights} exists already; give --overwrite or another --out")
    if checkpoint_path(weights).exists() and not (resume or overwrite):
        raise UsageError(f"{checkpoint_path(weights)} belongs to an unfinished run; give --resume or --overwrite")
