"""Reports as a point list of 3D Slicer (`.mrk.json`, markups schema 1.0.3). Positions are in LPS mm.

Slicer converts them to RAS when it loads the file. https://slicer.readthedocs.io, "Markups".
"""

import json

from gcnn_cli.detection.findings import Report

# The published identifier of the schema. Slicer compares the text and does not fetch it.
SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)


def slicer_markups(report: Report) -> str:
    """Return one fiducial list with a control point per nodule; without nodules the list is empty."""
    points = [
        {
            "id": str(number),
            "label": f"{number}",
            "description": (
                f"probability {nodule.probability:.3f}, diameter {nodule.diameter_mm:.1f} mm, slice {nodule.slice}"
            ),
            "position": [round(value, 4) for value in nodule.position_mm],
            "positionStatus": "defined",
        }
        for number, nodule in enumerate(report.nodules, start=1)
    ]
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": points}
    return json.dumps({"@schema": SCHEMA, "markups": [markup]}, indent=2) + "\n"
