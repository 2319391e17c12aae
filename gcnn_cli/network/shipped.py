"""The shipped weights as table rows: networks that score candidates, and the network that proposes them."""

from collections.abc import Mapping
from typing import Any

from gcnn_cli.network import weights
from gcnn_cli.network.committee import members_of
from gcnn_cli.network.proposal_weights import PROPOSAL_FORMAT, load_proposal_model

_SHOWN = ("cpm", "sensitivity_at_1", "auc")


def list_models() -> list[dict[str, Any]]:
    """Return the shipped weights as rows: name, group, parameters, size, input, figures, checksum and card.

    threshold: None for a proposal network
    limits:    why the score is not invariant under the group; empty if it is
    measured:  figures of the validation in training, from the header; the card describes the data

    Raises ModelError for damaged files.
    """
    rows = []
    for path in sorted(weights.models_folder().glob(f"*{weights.SUFFIX}")):
        formats = (*weights.SCORING_FORMATS, PROPOSAL_FORMAT)
        proposes = weights.read_weights(path, formats)[0]["format"] == PROPOSAL_FORMAT
        row = _proposal_row(path.stem) if proposes else _scoring_row(path.stem)
        card = path.with_suffix(".md")
        rows.append({**row, "bytes": path.stat().st_size, "card": str(card) if card.is_file() else ""})
    return rows


def _scoring_row(name: str) -> dict[str, Any]:
    model = weights.load_model(name)
    return {
        "name": model.name,
        "group": model.group,
        "members": len(members_of(model.network)),
        "parameters": model.network.parameters_count,
        "spacing_mm": model.input.spacing_mm,
        "side": model.input.side,
        "threshold": round(model.calibration.threshold, 4),
        "measured": _measured(model.provenance),
        "measured_on": _measured_on(model.provenance),
        "limits": model.limits,
        "sha256": model.sha256,
    }


def _proposal_row(name: str) -> dict[str, Any]:
    model = load_proposal_model(name)
    return {
        "name": model.name,
        "group": model.network.config.group,
        "members": 1,
        "parameters": model.network.parameters_count,
        "spacing_mm": model.input.spacing_mm,
        "side": model.input.side,
        "threshold": None,
        "measured": {},
        "measured_on": "",
        "limits": "",
        "sha256": model.sha256,
    }


def _measured(provenance: Mapping[str, Any]) -> dict[str, float]:
    """Return the main figures of the validation, by name; empty unless the header has one of the whole network."""
    validation = provenance.get("validation")
    figures = validation.get("validation") if isinstance(validation, Mapping) else None
    if not isinstance(figures, Mapping):
        return {}
    return {name: round(float(figures[name]), 4) for name in _SHOWN if isinstance(figures.get(name), (int, float))}


def _measured_on(provenance: Mapping[str, Any]) -> str:
    """Return what the figures were measured on. Those of patches are higher: they know no candidate that is missed.

    A committee is measured by its parts in whole scans: the network of each fold, or it and the one that joins them.
    """
    if not _measured(provenance):
        return ""
    if "out_of_fold" not in provenance:
        return "held-out patches"
    return "scans, by pairs" if "other" in provenance else "scans, by folds"
