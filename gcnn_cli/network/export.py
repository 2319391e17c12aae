"""Trained networks for other engines: ONNX and TorchScript files that need neither gcnn nor, for ONNX, PyTorch.

    patches [B, 1, D, H, W] float32, HU scaled from the contract's window to [-1, 1] and clipped
    -> logit [B], probability [B]

The file holds the inference form in float32, with the average over the group that the calibration asks for. Its
metadata, `gcnn`, is JSON with all that its input and output mean: spacing, sides, window, calibration, group and the
checksum of the weights.
"""

import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gcnn_cli.errors import UsageError
from gcnn_cli.files import check_not_existing, write_bytes
from gcnn_cli.network.inference import fold
from gcnn_cli.network.weights import TrainedModel
from gcnn_cli.symmetry.actions import rotate
from gcnn_cli.symmetry.cosets import coset_representatives

Format = Literal["onnx", "torchscript"]
SUFFIXES: dict[str, str] = {"onnx": ".onnx", "torchscript": ".pt"}

_KEY = "gcnn"
_OPSET = 18
_NEEDED = ("onnx", "onnxscript")


class ExportedNetwork(nn.Module):
    """Patches [B, 1, *sides] -> (logits [B], probabilities [B]), both as `gcnn detect` computes them, in float32."""

    def __init__(self, model: TrainedModel) -> None:
        super().__init__()
        config, calibration = model.network.config, model.calibration
        self.scores = fold(model.network).eval()
        self.looks = coset_representatives(config.invariant_under, calibration.average_over)
        self.slope, self.offset = calibration.slope, calibration.offset

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        logit = torch.stack([self.scores(rotate(patches, matrix)) for matrix in self.looks]).mean(dim=0)
        return logit, torch.sigmoid(self.slope * logit + self.offset)


def contract_of(model: TrainedModel) -> dict[str, Any]:
    """Return what a user of the exported network must know, as plain data."""
    return {
        "name": model.name,
        "weights_sha256": model.sha256,
        "group": model.group,
        "limits": model.limits,
        "input": {**asdict(model.input), "axes": "B, 1, z, y, x", "scaled_to": [-1, 1]},
        "outputs": ["logit", "probability"],
        "calibration": asdict(model.calibration),
        "notice": "For research use only. Not a medical device; not for diagnosis.",
    }


def export_model(model: TrainedModel, path: Path, form: Format, *, overwrite: bool = False) -> None:
    """Write a model as ONNX or TorchScript, through a temporary name.

    Raises UsageError if the file exists or the libraries for ONNX are missing.
    """
    check_not_existing([path], overwrite=overwrite)
    network = ExportedNetwork(model).eval().requires_grad_(False)
    example = torch.zeros(2, 1, *model.network.config.sides)
    contract = json.dumps(contract_of(model), sort_keys=True)
    content = _onnx(network, example, contract) if form == "onnx" else _torchscript(network, example, contract)
    write_bytes(path, content, overwrite=overwrite)


def _onnx(network: nn.Module, example: Tensor, contract: str) -> bytes:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"export to ONNX needs {' and '.join(missing)}: install gcnn with its extra 'export'")
    with _silent():  # the exporter warns of itself, and of libraries that are not needed
        program = torch.onnx.export(
            network,
            (example,),
            input_names=["patches"],
            output_names=["logit", "probability"],
            dynamic_shapes={"patches": {0: torch.export.Dim("batch", min=1)}},
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props[_KEY] = contract
    content: bytes = program.model_proto.SerializeToString()
    return content


@contextmanager
def _silent() -> Iterator[None]:
    """Keep warnings and log lines below errors to ourselves."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _torchscript(network: nn.Module, example: Tensor, contract: str) -> bytes:
    buffer = io.BytesIO()
    with _silent(), torch.no_grad():  # torch calls TorchScript deprecated; those who deploy it still need it
        traced = torch.jit.trace(network, example, check_trace=False)
        torch.jit.save(traced, buffer, _extra_files={f"{_KEY}.json": contract})
    return buffer.getvalue()
