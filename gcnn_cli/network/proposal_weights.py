"""Weights file <-> proposal network: a safetensors file as in `weights`, with its own format number."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gcnn_cli.network.contract import InputSpec
from gcnn_cli.network.proposals import ProposalNetwork, ProposalNetworkConfig
from gcnn_cli.network.weights import checked_contents, find_weights, read_weights, write_weights

PROPOSAL_FORMAT = 3


@dataclass(frozen=True, eq=False)
class ProposalModel:
    """A proposal network and its input contract.

    input:  its side is that of the training patches
    sha256: of the weights file; empty for a model that has not been written
    """

    name: str
    network: ProposalNetwork
    input: InputSpec
    provenance: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""


def load_proposal_model(model: str) -> ProposalModel:
    """Load and check weights by shipped name or path, in eval mode on the CPU. Raises ModelError."""
    path = find_weights(model)
    header, state, sha256 = read_weights(path, (PROPOSAL_FORMAT,))
    with checked_contents(path):
        name, provenance = header["name"], header["provenance"]
        if not isinstance(name, str) or not name.isprintable() or not name or not isinstance(provenance, dict):
            raise TypeError(f"invalid name {name!r} or provenance")
        config = ProposalNetworkConfig(**header["network"])
        if config.kernel_values > sum(value.numel() for value in state.values()):  # a small file makes no large network
            raise ValueError("the network and the tensors differ in size")
        network = ProposalNetwork(config)
        if {k: v.shape for k, v in network.state_dict().items()} != {k: v.shape for k, v in state.items()}:
            raise ValueError("the network and the tensors differ in shape")
        network.load_state_dict(state)
        return ProposalModel(name, network.eval(), InputSpec(**header["input"]), provenance, sha256)


def save_proposal_model(model: ProposalModel, path: Path, *, overwrite: bool = False) -> str:
    """Write a weights file through a temporary name and return its sha256. Raises as `weights.write_weights`."""
    header = {
        "format": PROPOSAL_FORMAT,
        "name": model.name,
        "network": asdict(model.network.config),
        "input": asdict(model.input),
        "provenance": dict(model.provenance),
    }
    return write_weights(header, model.network.state_dict(), path, overwrite=overwrite)
