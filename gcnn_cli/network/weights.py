"""Weights files: safetensors with all that is needed to use the network.

The header's one entry, `gcnn`, is JSON: format number, name, network config, input contract,
calibration, operating points, provenance and the sha256 of the tensors. Group tables are not
stored: they are computed from the group's name. Nothing in the file is executable.

Loading makes two checks: the tensors against the header's own sha256, and shipped weights
against `manifest.json` beside them. Both detect damage and accidental exchange. Neither is a
signature: whoever can write the weights can write the manifest, too.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from gcnn_cli.errors import DeviceError, ModelError, UsageError, is_out_of_memory
from gcnn_cli.files import write_bytes
from gcnn_cli.network.architecture import NetworkConfig, stated
from gcnn_cli.network.committee import Network, build_network, check_values, equal_shares, members_of, shares_of
from gcnn_cli.network.contract import Calibration, InputSpec
from gcnn_cli.network.invariance import check_symmetric_voxels, limits_of
from gcnn_cli.network.weight_files import SUFFIX as SUFFIX
from gcnn_cli.network.weight_files import locate_weights
from gcnn_cli.network.weight_files import models_folder as models_folder

FORMAT = 1  # of one network
COMMITTEE_FORMAT = 2  # of several; the header says how many (`members`), tensors are named `members.N.` first
SHARES_FORMAT = 4  # of a committee whose members count unequally (`shares`); a version without shares refuses it
SCORING_FORMATS = (FORMAT, COMMITTEE_FORMAT, SHARES_FORMAT)
MANIFEST = "manifest.json"

_KEY = "gcnn"


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A network with its input contract and the meaning of its scores.

    sha256: of the weights file; empty for a model that has not been written

    Raises ModelError where the group exchanges axes of different voxel spacing and the network is not configured for
    weight sharing alone.
    """

    name: str
    network: Network
    input: InputSpec
    calibration: Calibration
    provenance: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""

    def __post_init__(self) -> None:
        if self.network.group.dimension == len(self.input.spacing_zyx):
            check_symmetric_voxels(self.network.config, self.input)

    @property
    def group(self) -> str:
        """Name of the network's group."""
        return self.network.config.group

    @property
    def limits(self) -> str:
        """Why the score is not invariant under the network's group, as a sentence; empty if it is."""
        return limits_of(self.network.config, self.input)

    def recalibrated(self, calibration: Calibration, *, name: str) -> "TrainedModel":
        """Return the same network under another name, with another calibration. It has no sha256 until written."""
        provenance = {**self.provenance, "recalibrated_from": self.sha256}
        return replace(self, name=name, calibration=calibration, provenance=provenance, sha256="")


def find_weights(model: str) -> Path:
    """Return the path of a weights file, given by shipped name or path. Raises ModelError if there is no such file."""
    return locate_weights(model, models_folder())


def load_model(model: str) -> TrainedModel:
    """Load and check weights by shipped name or path. Raises ModelError, DeviceError.

    The network is in eval mode on the CPU.
    """
    path = find_weights(model)
    header, state, sha256 = read_weights(path, SCORING_FORMATS)
    with checked_contents(path):
        return _make_model(header, state, sha256)


def read_weights(path: Path, formats: tuple[int, ...]) -> tuple[dict[str, Any], dict[str, Tensor], str]:
    """Return header, tensors and sha256 of a weights file of one of these formats. Raises ModelError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    sha256 = hashlib.sha256(content).hexdigest()
    _check_manifest(path, sha256)
    try:
        state = load(content)  # these bytes, which were hashed, and not the file again, which may have changed
        header = _header(content)
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise ModelError(
            f"{path}: not a gcnn weights file, or damaged ({' '.join(str(error).split())[:120]})"
        ) from None
    if header.get("format") not in formats:
        raise ModelError(
            f"{path}: weights of format {header.get('format')!r}; must be format {' or '.join(map(str, formats))} here"
            " (1: a scoring network, 2 and 4: a committee, 3: a proposal network)"
        )
    if tensors_sha256(state) != header.get("tensors_sha256"):
        raise ModelError(f"{path}: the tensors do not match the header's checksum: the file was altered")
    if not all(bool(value.isfinite().all()) for value in state.values()):
        raise ModelError(f"{path}: contains NaN or infinite weights: its training failed")
    return header, state, sha256


@contextmanager
def checked_contents(path: Path) -> Iterator[None]:
    """Raise ModelError or DeviceError instead of the exceptions that contradictions of header and tensors cause."""
    try:
        yield
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise DeviceError(f"{path}: not enough memory to load these weights") from None
        raise ModelError(f"{path}: header and tensors do not match ({' '.join(str(error).split())[:160]})") from None


def _header(content: bytes) -> dict[str, Any]:
    """Return gcnn's header from the bytes of a weights file. Raises KeyError, TypeError or ValueError without one.

    The layout of safetensors: length of the JSON in 8 bytes, little-endian, then the JSON, then the tensors.
    """
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    return dict(json.loads(metadata[_KEY]))


def _make_model(header: Mapping[str, Any], state: Mapping[str, Tensor], sha256: str) -> TrainedModel:
    """Build the model of a header and its tensors. Raises ModelError, or the exceptions that contradictions cause."""
    name, provenance, config = header["name"], header["provenance"], NetworkConfig(**header["network"])
    if not isinstance(name, str) or not name.isprintable() or not name or not isinstance(provenance, dict):
        raise TypeError(f"invalid name {name!r} or provenance")
    spec = InputSpec(**header["input"])
    if spec.sides != config.sides:
        raise ValueError(f"patches of side {spec.side} for a network of side {config.side}")
    members = 1 if header["format"] == FORMAT else header["members"]
    if type(members) is not int or (header["format"] != FORMAT and members < 2):
        raise TypeError(f"members {members!r}")
    check_values(config, members, state)
    network = build_network(config, members, tuple(header["shares"]) if header["format"] == SHARES_FORMAT else None)
    if {k: v.shape for k, v in network.state_dict().items()} != {k: v.shape for k, v in state.items()}:
        raise ValueError("the network and the tensors differ in size")
    network.load_state_dict(state)
    return TrainedModel(name, network.eval(), spec, Calibration(**header["calibration"]), provenance, sha256)


def save_model(model: TrainedModel, path: Path, *, overwrite: bool = False) -> str:
    """Write a weights file through a temporary name and return its sha256. Raises UsageError if it exists.

    Among the shipped weights, its line of the manifest is written too. The other lines stay as they are: files that
    were altered are still refused. Raises ModelError for a damaged manifest.
    """
    members, shares = len(members_of(model.network)), shares_of(model.network)
    unequal = shares != equal_shares(members)
    header = {
        "format": FORMAT if members == 1 else SHARES_FORMAT if unequal else COMMITTEE_FORMAT,
        "name": model.name,
        "network": stated(model.network.config),
        "input": asdict(model.input),
        "calibration": asdict(model.calibration),
        "provenance": dict(model.provenance),
    }
    if members > 1:
        header["members"] = members
    if unequal:
        header["shares"] = list(shares)
    return write_weights(header, model.network.state_dict(), path, overwrite=overwrite)


def write_weights(header: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path, *, overwrite: bool) -> str:
    """Write a header and tensors as `save_model` does. Raises as it does."""
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: exists already; choose another name or --overwrite")
    sums = _read_manifest(path.parent) if _is_shipped(path) else {}
    state = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    complete = {**header, "tensors_sha256": tensors_sha256(state)}
    content = save(state, metadata={_KEY: json.dumps(complete, sort_keys=True)})
    sha256 = hashlib.sha256(content).hexdigest()
    write_bytes(path, content, overwrite=True)  # checked above
    if _is_shipped(path):
        text = json.dumps({**sums, path.name: sha256}, indent=2, sort_keys=True) + "\n"
        write_bytes(path.parent / MANIFEST, text.encode(), overwrite=True)
    return sha256


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """Return the sha256 of names, shapes, types and bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _is_shipped(path: Path) -> bool:
    return path.resolve().parent == models_folder().resolve()


def _check_manifest(path: Path, sha256: str) -> None:
    """Raise ModelError for shipped weights that are not the manifest's. Weights elsewhere have no manifest."""
    if not _is_shipped(path):
        return
    manifest = path.parent / MANIFEST
    if not manifest.exists():
        raise ModelError(f"{manifest}: missing; reinstall gcnn")
    if _read_manifest(path.parent).get(path.name) != sha256:
        raise ModelError(f"{path}: sha256 {sha256[:12]}… is not the manifest's: altered or incomplete; reinstall gcnn")


def _read_manifest(folder: Path) -> dict[str, str]:
    """Return the sha256 of each weights file by name; empty without a manifest. Raises ModelError for a damaged one."""
    manifest = folder / MANIFEST
    try:
        return dict(json.loads(manifest.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError):
        raise ModelError(f"{manifest}: unreadable or damaged; reinstall gcnn") from None
