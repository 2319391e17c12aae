"""Reports as grand-challenge.org's "Multiple points". Positions are (x, y, z) in LPS mm.

The schema allows only these keys, and a probability between 0 and 1 for each point.
"""

import json

from gcnn_cli.detection.findings import Report


def grand_challenge_points(report: Report) -> str:
    """Return one point per nodule; without nodules the list is empty."""
    points = [
        {
            "name": f"nodule {number}",
            "point": [round(value, 4) for value in nodule.position_mm],
            "probability": round(nodule.probability, 6),
        }
        for number, nodule in enumerate(report.nodules, start=1)
    ]
    data = {
        "name": "Pulmonary nodules",
        "type": "Multiple points",
        "points": points,
        "version": {"major": 1, "minor": 0},
    }
    return json.dumps(data, indent=2) + "\n"
