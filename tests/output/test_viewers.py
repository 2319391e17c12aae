"""3D Slicer's and grand-challenge's files against the constraints of their published schemas.

Slicer: Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json of Slicer/Slicer.
grand-challenge: "multiple points" of comic/grand-challenge.org, which allows no further keys.
"""

import json

import jsonschema
import numpy as np
import pytest
from output.reports import report_of
from scan.scans import axial, some_hu

from gcnn_cli.output.grand_challenge import grand_challenge_points
from gcnn_cli.output.slicer import slicer_markups
from gcnn_cli.scan.volume import Volume

VECTOR = {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3}


def an_object(required, **properties):
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


GRAND_CHALLENGE = an_object(
    ["version", "type", "points"],
    name={"type": "string"},
    type={"enum": ["Multiple points"]},
    points={
        "type": "array",
        "items": an_object(
            ["point"],
            name={"type": "string"},
            type={"enum": ["Point"]},
            point=VECTOR,
            probability={"type": "number", "minimum": 0, "maximum": 1},
        ),
    },
    version=an_object(["major", "minor"], major={"type": "number"}, minor={"type": "number"}),
)
TEXT = {"type": "string"}
# The published one allows more; these are the keys that are written, as it types them.
SLICER = an_object(
    ["@schema", "markups"],
    **{"@schema": {"type": "string", "pattern": r"markups-schema-v1\.0\.3\.json#$"}},
    markups={
        "type": "array",
        "items": an_object(
            ["type"],
            type={"enum": ["Fiducial", "Line", "Angle", "Curve", "ClosedCurve", "Plane", "ROI"]},
            coordinateSystem={"enum": ["LPS", "RAS"]},
            coordinateUnits={"enum": ["mm", "um"]},
            controlPoints={
                "type": "array",
                "items": an_object(
                    [],
                    id=TEXT,
                    label=TEXT,
                    description=TEXT,
                    position=VECTOR,
                    positionStatus={"enum": ["undefined", "preview", "defined"]},
                ),
            },
        ),
    },
)


@pytest.fixture(params=[2, 0])
def report(request):
    volume = Volume(some_hu(), axial())
    return report_of(volume, [[-9.5, 20.123456, -298.25], [-8, 21, -296]][: request.param])


@pytest.mark.parametrize(("write", "schema"), [(slicer_markups, SLICER), (grand_challenge_points, GRAND_CHALLENGE)])
def test_the_file_fits_the_schema(report, write, schema):
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(json.loads(write(report)), schema)


def test_slicer_reads_lps_millimeters_and_names_each_point(report):
    (markup,) = json.loads(slicer_markups(report))["markups"]
    assert (markup["type"], markup["coordinateSystem"], markup["coordinateUnits"]) == ("Fiducial", "LPS", "mm")
    points = markup["controlPoints"]
    assert [p["id"] for p in points] == [str(n + 1) for n in range(len(report.nodules))]
    assert {p["positionStatus"] for p in points} <= {"defined"}
    for point, nodule in zip(points, report.nodules, strict=True):
        assert np.allclose(point["position"], nodule.position_mm, atol=1e-4)
        assert f"slice {nodule.slice}" in point["description"]


def test_grand_challenge_has_version_one(report):
    data = json.loads(grand_challenge_points(report))
    assert data["version"] == {"major": 1, "minor": 0}
    assert [p["probability"] for p in data["points"]] == pytest.approx([n.probability for n in report.nodules])


def test_the_schemas_can_fail(report):
    data = json.loads(grand_challenge_points(report))
    with pytest.raises(jsonschema.ValidationError, match="Additional properties"):
        jsonschema.validate(data | {"diameter": 3}, GRAND_CHALLENGE)
    data = json.loads(slicer_markups(report))
    data["markups"][0]["coordinateSystem"] = "lps"
    with pytest.raises(jsonschema.ValidationError, match="is not one of"):
        jsonschema.validate(data, SLICER)
