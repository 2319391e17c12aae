"""The whole way with the shipped weights: what is there is found, wherever and however the scan is stored."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from conftest import turned

from gcnn_cli.detection.detector import DetectionConfig, Detector, make_detector
from gcnn_cli.detection.patches import patch_batches
from gcnn_cli.detection.pipeline import detect
from gcnn_cli.detection.proposals import ProposalConfig, load_proposer
from gcnn_cli.network.devices import has_fast_bfloat16
from gcnn_cli.network.inference import make_scorer
from gcnn_cli.network.verify import TOLERANCE, invariance_errors
from gcnn_cli.network.weights import load_model
from gcnn_cli.output.json_format import report_data
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.resample import as_image, resample
from gcnn_cli.scan.volume import Volume
from gcnn_cli.scan.writing import write_metaimage
from gcnn_cli.symmetry.actions import rotate
from gcnn_cli.symmetry.groups import make_group

CPU = torch.device("cpu")
# The laws hold for any number of candidates; the strongest hundred are quicker.
FEW = DetectionConfig(proposals=ProposalConfig(kept=100))


@pytest.fixture(scope="module")
def model():
    return load_model("octahedral")


@pytest.fixture(scope="module")
def scorer(model):
    return make_scorer(model.network, CPU, bfloat16=False)


@pytest.fixture(scope="module")
def detector(model, scorer):
    return Detector(model, scorer, load_proposer(CPU, bfloat16=False), FEW)


@pytest.fixture(scope="module")
def volume(sample):
    return read_volume(sample)


@pytest.fixture(scope="module")
def report(volume, detector):
    return detect(volume, detector, threshold=0.3)


def assert_same_nodules(a, b, within_mm=0.1, within=1e-3):
    assert len(a.nodules) == len(b.nodules) > 0
    for x, y in zip(a.nodules, b.nodules, strict=True):
        assert np.linalg.norm(np.subtract(x.position_mm, y.position_mm)) <= within_mm
        assert abs(x.probability - y.probability) <= within


def test_all_phantom_nodules_are_found_with_at_most_one_false_alarm(volume, model, sample):
    reported = detect(volume, Detector(model, make_scorer(model.network, CPU), load_proposer(CPU))).nodules
    with (sample.parent / "annotations.csv").open() as file:
        truth = [
            (np.array([float(row[c]) for c in ("coordX", "coordY", "coordZ")]), float(row["diameter_mm"]))
            for row in csv.DictReader(file)
        ]
    hits = [
        {n for n, nodule in enumerate(reported) if np.linalg.norm(nodule.position_mm - center) < diameter / 2}
        for center, diameter in truth
    ]
    assert all(hit for hit, (_, diameter) in zip(hits, truth, strict=True) if diameter >= 5)
    assert len(reported) - len(set().union(*hits)) <= 1


def test_the_order_is_by_probability(report):
    probabilities = [n.probability for n in report.nodules]
    assert probabilities == sorted(probabilities, reverse=True)


def test_the_stated_volume_is_that_of_the_searched_lungs(report):
    voxel_ml = float(np.prod(report.lungs.spacing_zyx)) / 1000
    assert report.lungs_ml == pytest.approx((report.lungs.hu > 0).sum() * voxel_ml)
    assert 1000 < report.lungs_ml < 10000


def test_index_slice_and_position_agree(report, volume):
    for nodule in report.nodules:
        assert np.allclose(volume.position_mm(np.array(nodule.index_zyx)), nodule.position_mm)
        assert nodule.slice == round(nodule.index_zyx[0]) + 1


@pytest.mark.parametrize("name", ["scan.mhd", "scan.mha", "scan.nii.gz", "flipped.mhd"])
def test_every_format_gives_the_same_nodules(report, volume, detector, tmp_path, name):
    path = tmp_path / name
    if name == "flipped.mhd":  # -1 on x and y, as some of LUNA16's files have
        write_metaimage(turned(volume, np.diag([1, -1, -1])), path)
        assert "TransformMatrix = -1 0 0 0 -1 0 0 0 1" in path.read_text()
    elif name == "scan.mhd":
        write_metaimage(volume, path)
    else:
        sitk.WriteImage(as_image(volume), str(path), useCompression=True)
    assert_same_nodules(detect(read_volume(path), detector, threshold=0.3), report)


def test_dicom_gives_the_same_nodules(report, detector, sample):
    found = detect(read_volume(sample.parent / "thorax_dicom"), detector, threshold=0.3)
    assert_same_nodules(found, report)
    assert len({n.sop_instance_uid for n in found.nodules}) > 1


@pytest.mark.parametrize("element", [1, 17, 30, 46])
def test_turning_the_scan_moves_nothing_in_the_patient(report, volume, detector, element):
    """Array and affine turned together; `test_resample` shows for all 48 that the grid is the same."""
    found = detect(turned(volume, make_group("Oh").matrices[element]), detector, threshold=0.3)
    assert_same_nodules(found, report, within_mm=float(volume.spacing_zyx.min()) / 2, within=0.01)


def test_moving_the_origin_moves_every_nodule_with_it(report, volume, detector):
    to_world = volume.to_world.copy()
    shift = np.array([100.0, -50.0, 7.5])
    to_world[:3, 3] += shift
    found = detect(Volume(volume.hu, to_world), detector, threshold=0.3)
    for a, b in zip(found.nodules, report.nodules, strict=True):
        assert np.allclose(np.subtract(a.position_mm, b.position_mm), shift, atol=1e-3)
        assert a.probability == pytest.approx(b.probability, abs=1e-6)


def test_a_turned_patch_has_the_same_score(volume, report, model, scorer):
    grid = resample(volume, model.input.spacing_mm)
    positions = [n.position_mm for n in report.nodules]
    (patches,) = patch_batches(grid, positions, model.input, 100)
    scores = scorer.score([patches])
    for matrix in make_group(model.group).matrices:
        turned_scores = scorer.score([rotate(patches, matrix)])
        assert np.abs(turned_scores - scores).max() <= 1e-5 * max(1.0, np.abs(scores).max())


def test_the_shipped_weights_are_invariant(model):
    assert max(e.error for e in invariance_errors(model.network)) <= TOLERANCE


@pytest.mark.skipif(not has_fast_bfloat16(CPU), reason="no fast bfloat16 here, so detection does not use it")
def test_bfloat16_finds_the_same_nodules(report, volume, model):
    detector = Detector(model, make_scorer(model.network, CPU, bfloat16=True), load_proposer(CPU), FEW)
    fast = detect(volume, detector, threshold=0.3)
    sure = [n for n in report.nodules if n.probability > 0.4]
    assert sure
    for nodule in sure:
        nearest = min(fast.nodules, key=lambda n: np.linalg.norm(np.subtract(n.position_mm, nodule.position_mm)))
        assert np.linalg.norm(np.subtract(nearest.position_mm, nodule.position_mm)) < 0.1
        assert nearest.probability == pytest.approx(nodule.probability, abs=0.02)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_finds_the_same_nodules(report, volume, model):
    """In its own precision, whole ways: from pinned patches to the scores' return."""
    device = torch.device("cuda")
    found = detect(volume, Detector(model, make_scorer(model.network, device), load_proposer(device), FEW))
    assert found.device.startswith("cuda")
    assert_same_nodules(report, found, within=0.05)


def test_the_report_explains_itself(report, model):
    data = report_data(report)
    assert data["weights"] == {"name": "octahedral", "sha256": model.sha256, "group": "O"}
    assert data["options"]["proposals"]["kept"] == 100
    assert data["options"]["candidate_weights"].startswith("proposals ")
    json.dumps(data, allow_nan=False)


@pytest.mark.parametrize(("candidates", "warned"), [("mine 00ff", True), ("own", False), ("", False)])
def test_weights_that_were_trained_on_other_candidates_say_so(model, caplog, candidates, warned):
    stated = load_proposer(CPU).name if candidates == "own" else candidates
    known = {"candidate_weights": stated} if stated else {}
    make_detector(dataclasses.replace(model, provenance={**model.provenance, **known}), CPU)
    assert ("trained on candidates of mine, not of proposals" in caplog.text) == warned
    assert bool(caplog.text) == warned


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "rank"),
    [
        ("dicom/LIDC-IDRI-0001", 1),
        ("scans/LIDC-IDRI-0023.mha", 1),
        ("scans/LIDC-IDRI-0132a.mha", 2),
        ("scans/LIDC-IDRI-0132b.mha", 2),
    ],
)
def test_the_reference_nodules_are_listed_first(shared_data, model, place, rank):
    """Every nodule that three readers marked is hit by one of the first three findings, and by one of the first `rank`
    where those are left out that one or two readers marked, as LUNA16 does.
    """
    path = shared_data / place
    found = detect(read_volume(path), Detector(model, make_scorer(model.network, CPU), load_proposer(CPU))).nodules
    marked, doubtful = (
        marks_of(shared_data / name, path.name.removesuffix(".mha"))
        for name in ("annotations.csv", "annotations_excluded.csv")
    )
    assert len(marked) == rank
    clear = [n for n in found if not any(lies_in(n, mark) for mark in doubtful)]
    for mark in marked:
        assert any(lies_in(n, mark) for n in found[:3])
        assert any(lies_in(n, mark) for n in clear[:rank])


def marks_of(table, name):
    """Center and diameter of each mark in a scan."""
    with table.open() as file:
        rows = [row for row in csv.DictReader(file) if row["seriesuid"] == name]
    return [(np.array([float(r[c]) for c in ("coordX", "coordY", "coordZ")]), float(r["diameter_mm"])) for r in rows]


def lies_in(nodule, mark):
    center, diameter = mark
    return np.linalg.norm(nodule.position_mm - center) < diameter / 2
