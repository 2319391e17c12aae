"""Weights file <-> network: a safetensors file that explains itself.

The header's one entry, `gcnn`, is JSON: format number, name, network config, input contract,
calibration, operating points, provenance and the sha256 of the tensors. Group tables are not
stored: they are made again from the group's name. Nothing in the file is executable.

Two checks on load: the tensors against the header's own sha256 (damage), and, for the weights
that ship, the whole file against `manifest.json` beside them (exchange).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from gcnn_cli.errors import ModelError, UsageError
from gcnn_cli.files import write_bytes
from gcnn_cli.network.architecture import GCNN, NetworkConfig
from gcnn_cli.network.contract import Calibration, InputSpec

FORMAT = 1
SUFFIX = ".safetensors"
MANIFEST = "manifest.json"

_KEY = "gcnn"


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A network with everything that its scores mean. sha256 is the file's; empty before it is written."""

    name: str
    network: GCNN
    input: InputSpec
    calibration: Calibration
    provenance: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""

    @property
    def group(self) -> str:
        """Name of the network's group."""
        return self.network.config.group

    def recalibrated(self, calibration: Calibration, *, name: str) -> "TrainedModel":
        """The same network under another name, with another meaning of its scores. Not written yet: no sha256."""
        provenance = {**self.provenance, "recalibrated_from": self.sha256}
        return replace(self, name=name, calibration=calibration, provenance=provenance, sha256="")


def models_folder() -> Path:
    """Where the shipped weights lie: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "models"
    return installed if installed.is_dir() else package.parent / "models"


def find_weights(model: str) -> Path:
    """Path of a weights file from a shipped name or a path. Raises ModelError when there is none."""
    shipped = models_folder() / f"{model}{SUFFIX}"
    if shipped.is_file():
        return shipped
    path = Path(model)
    if path.is_file():
        return path
    names = sorted(p.stem for p in models_folder().glob(f"*{SUFFIX}"))
    raise ModelError(f"no weights named {model!r} and no such file; shipped: {', '.join(names) or 'none'}")


def load_model(model: str) -> TrainedModel:
    """Load and check weights by shipped name or path, in eval mode on the CPU. Raises ModelError."""
    path = find_weights(model)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    sha256 = hashlib.sha256(content).hexdigest()
    _check_manifest(path, sha256)
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(json.loads((file.metadata() or {})[_KEY]))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{path}: not a gcnn weights file, or damaged ({' '.join(str(error).split())[:120]})"
        ) from None
    if header.get("format") != FORMAT:
        raise ModelError(f"{path}: weights of format {header.get('format')!r}; this version reads format {FORMAT}")
    if tensors_sha256(state) != header.get("tensors_sha256"):
        raise ModelError(f"{path}: the tensors do not match the header's checksum: the file was altered")
    if not all(bool(value.isfinite().all()) for value in state.values()):
        raise ModelError(f"{path}: holds NaN or infinite weights: its training has failed")
    try:
        return _make_model(header, state, sha256)
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise ModelError(f"{path}: header and tensors do not fit ({' '.join(str(error).split())[:160]})") from None


def _make_model(header: Mapping[str, Any], state: Mapping[str, Tensor], sha256: str) -> TrainedModel:
    """The model of a header and its tensors. Raises ModelError, or what their contradictions raise."""
    name, provenance, config = header["name"], header["provenance"], NetworkConfig(**header["network"])
    if not isinstance(name, str) or not name.isprintable() or not name or not isinstance(provenance, dict):
        raise TypeError(f"name {name!r} or provenance")
    spec = InputSpec(**header["input"])
    if spec.side != config.side:
        raise ValueError(f"patches of side {spec.side} for a network of side {config.side}")
    if len(config.fields) > len(state):
        raise ValueError(f"{len(config.fields)} layers and {len(state)} tensors")
    if config.kernel_values > sum(value.numel() for value in state.values()):  # a small file makes no large network
        raise ValueError("the network is of another size than the tensors")
    network = GCNN(config)
    if {k: v.shape for k, v in network.state_dict().items()} != {k: v.shape for k, v in state.items()}:
        raise ValueError("the network is of another size than the tensors")
    network.load_state_dict(state)
    return TrainedModel(name, network.eval(), spec, Calibration(**header["calibration"]), provenance, sha256)


def save_model(model: TrainedModel, path: Path, *, overwrite: bool = False) -> str:
    """Write a weights file through a temporary name; returns its sha256. Raises UsageError if it exists.

    Among the shipped weights the manifest is brought up to date.
    """
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: exists already; choose another name or --overwrite")
    state = {name: value.detach().cpu().contiguous() for name, value in model.network.state_dict().items()}
    header = {
        "format": FORMAT,
        "name": model.name,
        "network": asdict(model.network.config),
        "input": asdict(model.input),
        "calibration": asdict(model.calibration),
        "provenance": dict(model.provenance),
        "tensors_sha256": tensors_sha256(state),
    }
    content = save(state, metadata={_KEY: json.dumps(header, sort_keys=True)})
    write_bytes(path, content, overwrite=True)  # whether it may was asked above
    if _is_shipped(path):
        write_manifest(path.parent)
    return hashlib.sha256(content).hexdigest()


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """Checksum over names, shapes, types and bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_manifest(folder: Path) -> None:
    """Record the sha256 of every weights file in a folder."""
    sums = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.glob(f"*{SUFFIX}"))}
    (folder / MANIFEST).write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")


def _is_shipped(path: Path) -> bool:
    return path.resolve().parent == models_folder().resolve()


def _check_manifest(path: Path, sha256: str) -> None:
    """Shipped weights must be the ones in the manifest; weights elsewhere have none to answer to."""
    if not _is_shipped(path):
        return
    manifest = path.parent / MANIFEST
    try:
        expected = json.loads(manifest.read_text(encoding="utf-8")).get(path.name)
    except (OSError, ValueError):
        raise ModelError(f"{manifest}: missing or damaged; reinstall gcnn") from None
    if expected != sha256:
        raise ModelError(f"{path}: sha256 {sha256[:12]}… is not the manifest's: altered or incomplete; reinstall gcnn")


def list_models() -> list[dict[str, Any]]:
    """The shipped weights as rows: name, group, parameters, size, input, checksum, what was measured, the card.

    measured: figures of the header, from the last validation of their training; the card says on what.
    """
    rows = []
    for path in sorted(models_folder().glob(f"*{SUFFIX}")):
        model = load_model(path.stem)
        card = path.with_suffix(".md")
        rows.append(
            {
                "name": model.name,
                "group": model.group,
                "parameters": model.network.parameters_count,
                "bytes": path.stat().st_size,
                "spacing_mm": model.input.spacing_mm,
                "side": model.input.side,
                "threshold": round(model.calibration.threshold, 4),
                "measured": _measured(model.provenance),
                "sha256": model.sha256,
                "card": str(card) if card.is_file() else "",
            }
        )
    return rows


def _measured(provenance: Mapping[str, Any]) -> dict[str, float]:
    """Figures of the last validation, by name; empty where the header has none."""
    validation = provenance.get("validation")
    figures = validation.get("validation") if isinstance(validation, Mapping) else None
    if not isinstance(figures, Mapping):
        return {}
    return {str(name): round(float(value), 4) for name, value in figures.items() if isinstance(value, (int, float))}
