"""Weights files by shipped name or path. Knows nothing of their contents and needs no torch."""

from pathlib import Path

from gcnn_cli.errors import ModelError

SUFFIX = ".safetensors"
DEFAULT_MODEL = "committee"
DEFAULT_PROPOSALS = "proposals"


def models_folder() -> Path:
    """Return the folder of the shipped weights: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "models"
    return installed if installed.is_dir() else package.parent / "models"


def locate_weights(model: str, folder: Path) -> Path:
    """Return the path of weights, given by their name in a folder or by path. Raises ModelError if there are none."""
    shipped = folder / f"{model}{SUFFIX}"
    if shipped.is_file():
        return shipped
    path = Path(model)
    if path.is_file():
        return path
    names = sorted(p.stem for p in folder.glob(f"*{SUFFIX}"))
    raise ModelError(f"no weights named {model!r} and no such file; shipped: {', '.join(names) or 'nothing'}")
