"""Follow-up: turned, shifted and grown nodules of known truth are found again, and their growth is what it was."""

import csv
import io
import json
import math
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from conftest import make_network
from output.reports import report_of
from scan.scans import axial, some_hu, write_series
from scipy import ndimage
from typer.testing import CliRunner

from gcnn_cli.cli import app
from gcnn_cli.detection.findings import Candidate, ScanSummary, Seed
from gcnn_cli.detection.lungs import LungConfig, segment_lungs
from gcnn_cli.detection.measure import measure_nodule
from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.followup import registration, run
from gcnn_cli.followup.files import COLUMNS, follow_csv, follow_data, write_follow_up
from gcnn_cli.followup.growth import Growth, growth, volume_sd
from gcnn_cli.followup.inputs import follow_paths
from gcnn_cli.followup.matching import Found, Status, match_nodules
from gcnn_cli.followup.registration import Alignment, align
from gcnn_cli.followup.run import Exam, faint_threshold, follow, read_exam
from gcnn_cli.followup.words import doubling_words, pair_rows, status_words
from gcnn_cli.network.contract import Calibration, InputSpec
from gcnn_cli.network.weights import TrainedModel, save_model
from gcnn_cli.phantom import make_phantom, quick_config
from gcnn_cli.phantom.render import CENTER_LPS_MM
from gcnn_cli.scan.dicom.dates import Visit, read_visit
from gcnn_cli.scan.reading import read_volume
from gcnn_cli.scan.resample import resample
from gcnn_cli.scan.volume import Source, Volume, make_affine
from gcnn_cli.scan.writing import write_metaimage

# Places in the phantom's lungs (x, y, z), and diameters on the first and the second date; None: absent.
_TRUTH = (
    ((60.0, 20.0, 20.0), 8.0, 12.0),
    ((-60.0, -20.0, 0.0), 14.0, 14.0),
    ((55.0, -30.0, -10.0), None, 9.0),
    ((-70.0, 25.0, 30.0), 10.0, None),
)
TRUTH = tuple((tuple(np.add(place, CENTER_LPS_MM)), *diameters) for place, *diameters in _TRUTH)
DAYS = 180.0
ANGLE, SHIFT = np.radians(6.0), np.array([14.0, -9.0, 22.0])
TURN = np.array([[math.cos(ANGLE), -math.sin(ANGLE), 0], [math.sin(ANGLE), math.cos(ANGLE), 0], [0, 0, 1]])


def moved(position):
    """Where a place of the first date lies on the second."""
    return TURN @ np.asarray(position) + SHIFT


def scan_of(lung, date_number):
    """The empty phantom with the nodules of one date painted in; on the second, the patient lies otherwise.

    Both dates have a lattice along the patient table, so the second one's voxels are interpolated.
    """
    index = np.indices(lung.shape).transpose(1, 2, 3, 0).astype(float)
    affine, hu = lung.to_world.copy(), lung.hu.astype(np.float32)
    if date_number:
        affine[:3, 3] += moved(CENTER_LPS_MM) - CENTER_LPS_MM + (0.4, 0.9, 1.1)  # the table stands elsewhere, too
        before = (Volume(lung.hu, affine).position_mm(index) - SHIFT) @ TURN
        hu = ndimage.map_coordinates(hu, lung.index_zyx(before).transpose(3, 0, 1, 2), order=1, cval=-1000)
    place = Volume(lung.hu, affine).position_mm(index)
    for center, *diameters in TRUTH:
        if diameters[date_number]:
            # A rim as wide as a voxel stands for partial volume.
            away = np.linalg.norm(place - (moved(center) if date_number else np.array(center)), axis=3)
            share = np.clip((diameters[date_number] / 2 - away) / 2.0 + 0.5, 0, 1)
            hu = np.where(share > 0, np.maximum(hu, hu + share * (40 - hu)), hu)
    source = Source(f"scan-{date_number}.mha", "metaimage", f"scan-{date_number}", sha256=f"{date_number}" * 64)
    return Volume(np.round(hu).astype(np.int16), affine, source)


def exam_of(volume, date_number):
    """An exam with the nodules measured where they are, as detection would."""
    grid = resample(volume, 1.0)
    lungs = segment_lungs(grid, LungConfig())
    places = [(moved(c) if date_number else np.array(c), d[date_number]) for c, *d in TRUTH if d[date_number]]
    report = report_of(volume, np.array([place for place, _ in places]))
    nodules = []
    for nodule, (place, diameter) in zip(report.nodules, places, strict=True):
        made = measure_nodule(grid, lungs, Candidate(tuple(place), diameter, 1.0))
        nodules.append(
            replace(nodule, position_mm=made.position_mm, diameter_mm=made.diameter_mm, volume_mm3=made.volume_mm3)
        )
    lungs_volume = Volume(lungs.astype(np.int16), grid.to_world)
    return Exam(volume, replace(report, nodules=tuple(nodules), lungs=lungs_volume))


@pytest.fixture(scope="module")
def exams():
    lung = make_phantom(quick_config(5, nodules=0)).volume
    return [exam_of(scan_of(lung, number), number) for number in (0, 1)]


@pytest.fixture(scope="module")
def made(exams):
    return follow(*exams, DAYS)


# The whole way


def test_a_turned_and_shifted_patient_is_laid_on_itself(made):
    for center, *_ in TRUTH:
        assert np.linalg.norm(made.alignment.to_prior(moved(center)) - center) < 3
        assert np.linalg.norm(made.alignment.to_current(np.array(center)) - moved(center)) < 3
    assert made.alignment.overlap > 0.93


def cropped(volume, keep):
    """The part of a volume between two slices."""
    to_world = volume.to_world.copy()
    to_world[:3, 3] += volume.to_world[:3, 0] * keep.start
    return Volume(volume.hu[keep], to_world, volume.source)


def test_half_a_scan_is_laid_where_it_belongs_and_noted(exams, made):
    prior, current = exams
    lungs = prior.report.lungs
    half = [cropped(v, slice(0, v.shape[0] // 2)) for v in (prior.volume, lungs)]
    alignment = align(*half, current.volume, current.report.lungs)
    places = np.array([place for place, *_ in TRUTH])
    there = alignment.to_prior(np.array([moved(place) for place in places]))
    assert np.linalg.norm(there - places, axis=1).max() < 3
    assert 0.4 < alignment.in_common < 0.6
    assert 0.95 < made.alignment.in_common <= 1
    assert any("% of the lungs are in both scans" in note for note in run._warnings(*exams, alignment, DAYS))
    assert not any("in both scans" in note for note in made.warnings)


def test_every_nodule_is_what_became_of_it(made):
    assert len(made.pairs) == len(TRUTH)
    for center, before, now in TRUTH:
        pair = min(made.pairs, key=lambda p: np.linalg.norm(_place(p) - center))
        assert np.linalg.norm(_place(pair) - center) < 4
        wanted = Status.MATCHED if before and now else Status.NEW if now else Status.GONE
        assert pair.status is wanted
        if wanted is Status.MATCHED:
            assert pair.distance_mm < 4
            assert pair.growth.log_ratio == pytest.approx(3 * math.log(now / before), abs=0.2)


def _place(pair):
    """A pair's place on the first date."""
    if pair.prior:
        return np.array(pair.prior.position_mm)
    return TURN.T @ (np.array(pair.current.position_mm) - SHIFT)


def test_the_grown_one_has_changed_and_the_stable_one_has_not(made):
    grown, stable = (min(made.pairs, key=lambda p: np.linalg.norm(_place(p) - TRUTH[n][0])).growth for n in (0, 1))
    assert grown.is_change
    assert not stable.is_change
    fast, slow = grown.doubling_interval
    expected = DAYS * math.log(2) / (3 * math.log(12 / 8))
    assert fast < expected < slow
    assert stable.doubling_interval[1] is None
    assert "no change beyond the error" in doubling_words(stable)


def test_the_files_hold_it_and_the_page_shows_both_dates(made, exams, tmp_path):
    paths = follow_paths(tmp_path / "scan-0.mha", tmp_path / "a.nodules.json", tmp_path)
    assert {p.name for p in paths.values()} == {f"scan-0_to_a.follow.{e}" for e in ("csv", "json", "html")}
    write_follow_up(made, paths, overwrite=False)
    with pytest.raises(UsageError, match="exists already"):
        write_follow_up(made, paths, overwrite=False)
    rows = list(csv.DictReader(io.StringIO(paths["csv"].read_text())))
    assert tuple(rows[0]) == COLUMNS
    assert [row["status"] for row in rows] == [str(pair.status) for pair in made.pairs]
    for row, pair in zip(rows, made.pairs, strict=True):
        assert all(row[f"{when}_{axis}"] for when in ("prior", "current") for axis in "XYZ")
        assert (row["change_percent"] == "") == (pair.growth is None)
    data = json.loads(paths["json"].read_text())
    assert data == json.loads(json.dumps(follow_data(made)))
    assert data["days"] == DAYS
    page = paths["html"].read_text()
    assert page.count("<img ") == 6 * len(made.pairs)
    assert page.count('class="mark"') == 3 * sum(bool(p.prior) + bool(p.current) for p in made.pairs)
    assert "<script" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert len(pair_rows(made)) == len(made.pairs)


# Alignment


def test_what_cannot_be_laid_on_each_other_is_refused(exams, monkeypatch):
    monkeypatch.setattr(registration, "_LEAST_OVERLAP", 1.01)
    monkeypatch.setattr(registration, "_STEPS", 1)
    volumes = [v for exam in exams for v in (exam.volume, exam.report.lungs)]
    with pytest.raises(InputError, match="are they of one patient"):
        align(*volumes)


def test_a_scan_without_lungs_cannot_be_aligned(exams):
    first, second = exams
    empty = Volume(np.zeros_like(second.report.lungs.hu), second.report.lungs.to_world)
    with pytest.raises(InputError, match="no lung to align"):
        align(first.volume, first.report.lungs, second.volume, empty)


# Matching

LATTICE = Volume(
    np.zeros((100, 100, 100), np.int16), make_affine(np.full(3, 2.0), np.eye(3)[:, ::-1], -100 * np.ones(3))
)
SAME = Alignment(np.eye(4), 1.0)


def found(*nodules, threshold=0.5):
    """Findings (place, diameter, probability) of one date."""
    report = report_of(LATTICE, np.array([place for place, _, _ in nodules]).reshape(-1, 3))
    made = tuple(
        replace(n, diameter_mm=d, volume_mm3=math.pi / 6 * d**3, probability=p)
        for n, (_, d, p) in zip(report.nodules, nodules, strict=True)
    )
    return Found(ScanSummary.of(LATTICE), made, threshold)


def outcome(prior, current, alignment=SAME):
    return [
        (p.status, p.prior and p.prior.diameter_mm, p.current and p.current.diameter_mm, p.faint)
        for p in match_nodules(prior, current, alignment, None)
    ]


def test_neighbors_are_told_apart_by_their_size():
    prior = found(((0, 0, 0), 5.0, 0.9), ((9, 0, 0), 12.0, 0.8))
    current = found(((5, 0, 0), 12.5, 0.9), ((-3, 0, 0), 5.0, 0.8))
    assert outcome(prior, current) == [(Status.MATCHED, 12.0, 12.5, False), (Status.MATCHED, 5.0, 5.0, False)]


def test_a_stable_nodule_keeps_its_partner_while_its_neighbors_come_and_go():
    """The most pairs would be two: 12 with 5 mm and 5 with 12 mm, which no nodule did."""
    prior = found(((0, 0, 0), 12.0, 0.9), ((-11, 0, 0), 5.0, 0.8))
    current = found(((0, 0, 0), 12.0, 0.9), ((11, 0, 0), 5.0, 0.8))
    assert outcome(prior, current) == [
        (Status.MATCHED, 12.0, 12.0, False), (Status.NEW, None, 5.0, False), (Status.GONE, 5.0, None, False),
    ]  # fmt: skip


def test_one_that_grew_in_its_place_is_matched():
    assert outcome(found(((0, 0, 0), 5.0, 0.9)), found(((4, 0, 0), 15.0, 0.9))) == [(Status.MATCHED, 5.0, 15.0, False)]


def test_what_was_not_measured_has_not_grown():
    """Where nothing stands out, a nodule has the candidate's size, one of a few steps."""
    dates = []
    for place, diameter in (((0, 0, 0), 4.8), ((1, 0, 0), 6.6)):
        date_found = found((place, diameter, 0.9))
        (nodule,) = date_found.nodules
        dates.append((date_found, replace(date_found, nodules=(replace(nodule, seed=Seed(place, diameter)),))))
    (measured, stepped), (measured_now, stepped_now) = dates
    for prior, current in ((stepped, measured_now), (measured, stepped_now), (stepped, stepped_now)):
        (pair,) = match_nodules(prior, current, SAME, 365.0)
        assert (pair.status, pair.growth) == (Status.MATCHED, None)
    (pair,) = match_nodules(measured, measured_now, SAME, 365.0)
    assert pair.growth.is_change


def test_matching_is_one_to_one():
    prior, current = found(((0, 0, 0), 6.0, 0.9)), found(((1, 0, 0), 6.0, 0.9), ((2, 0, 0), 6.0, 0.8))
    assert [row[0] for row in outcome(prior, current)] == [Status.MATCHED, Status.NEW]


def test_a_fainter_finding_on_the_other_date_is_no_new_nodule():
    faint = found(((1, 0, 0), 6.0, 0.2), threshold=0.5)
    assert outcome(faint, found(((0, 0, 0), 6.0, 0.9))) == [(Status.MATCHED, 6.0, 6.0, True)]
    assert outcome(found(((0, 0, 0), 6.0, 0.9)), faint) == [(Status.MATCHED, 6.0, 6.0, True)]
    (pair,) = match_nodules(faint, found(((0, 0, 0), 6.0, 0.9)), SAME, None)
    assert status_words(pair) == "matched, below the threshold before"
    # Two faint ones are nobody's nodule, and one far away is another place.
    assert outcome(faint, found(((0, 0, 0), 6.0, 0.3))) == []
    assert [r[0] for r in outcome(found(((9, 0, 0), 6.0, 0.2)), found(((0, 0, 0), 6.0, 0.9)))] == [Status.NEW]


def test_a_place_that_the_other_scan_does_not_show_is_neither_new_nor_gone():
    away = Alignment(make_affine(np.ones(3), np.eye(3), np.array([0, 0, 150.0])), 1.0)
    assert outcome(found(), found(((0, 0, 0), 6.0, 0.9)), away) == [(Status.NOT_SHOWN, None, 6.0, False)]
    assert outcome(found(((0, 0, 0), 6.0, 0.9)), found(), away) == [(Status.NOT_SHOWN, 6.0, None, False)]
    (pair,) = match_nodules(found(), found(((0, 0, 0), 6.0, 0.9)), away, None)
    assert status_words(pair) == "outside the earlier scan"


# Growth


def test_doubling_and_halving_times_are_known_answers():
    assert Growth(math.log(2), 0.1, 100).doubling_days == pytest.approx(100)
    assert Growth(math.log(2), 0.1, 100).percent == pytest.approx(100)
    assert Growth(-math.log(2), 0.1, 100).doubling_days == pytest.approx(-100)
    fast, slow = Growth(math.log(2), 0.1, 100).doubling_interval
    assert (fast, slow) == pytest.approx((100 / (1 + 0.196 / math.log(2)), 100 / (1 - 0.196 / math.log(2))))
    assert Growth(0.1, 0.1, 100).doubling_interval[1] is None
    assert Growth(math.log(2), 0.1, None).doubling_days is None
    assert "days unknown" in doubling_words(Growth(math.log(2), 0.1, None))
    assert doubling_words(Growth(-math.log(2), 0.01, 100)) == "100 days to half (97 to 103)"


def test_the_error_is_the_patients_and_the_measurements():
    patient = 0.27 / 1.96 / math.sqrt(2)
    assert volume_sd(7, 1.0) == pytest.approx(math.hypot(patient, 0.147))
    assert volume_sd(7, 2.5) > volume_sd(7, 1.75) > volume_sd(7, 1.0)
    assert volume_sd(5.5, 5.0) == volume_sd(5.5, 2.5) > volume_sd(5.5, 1.0)
    assert volume_sd(30, 1.0) == volume_sd(12.5, 0.5)
    thin = growth(500, 1.0, 600, 1.0, None)
    assert thin.sd == pytest.approx(math.hypot(volume_sd(9.847, 1.0), volume_sd(10.464, 1.0)), rel=1e-3)


# Exams and dates


def test_dates_come_from_dicom_and_stand_nowhere(tmp_path):
    def dated(text):
        def edit(number, dataset):
            dataset.StudyDate, dataset.AcquisitionDate = "20200101", text

        return edit

    volumes = [
        read_volume(write_series(tmp_path / f"s{n}", some_hu(), axial(), edit=dated(text)))
        for n, text in enumerate(("20200301", "20200829", ""))
    ]
    visits = [read_visit(v.source) for v in volumes]
    assert [visit.acquired for visit in visits] == [date(2020, 3, 1), date(2020, 8, 29), date(2020, 1, 1)]
    assert run._days_between(visits[0], visits[1]) == 181
    with pytest.raises(UsageError, match="181 days after the second"):
        run._days_between(visits[1], visits[0])
    assert run._days_between(visits[0], visits[0]) is None  # made up, or of one visit


def test_two_patients_are_noted_and_not_named(exams, monkeypatch):
    def notes(*patients):
        visits = iter(Visit(None, patient) for patient in patients)
        monkeypatch.setattr(run, "read_visit", lambda _: next(visits))
        return [note for note in follow(*exams, DAYS).warnings if "two patients" in note]

    (note,) = notes("SECRET-1", "SECRET-2")
    assert "SECRET" not in note + repr(Visit(None, "SECRET-1"))
    assert notes("SECRET-1", "SECRET-1") == notes("SECRET-1", "") == []


def test_the_patient_comes_from_dicom_alone(tmp_path):
    def named(number, dataset):
        dataset.PatientID = "SECRET-1"

    volume = read_volume(write_series(tmp_path / "s", some_hu(), axial(), edit=named))
    assert read_visit(volume.source).patient == "SECRET-1"
    assert read_visit(Source("a.mha", "metaimage", "a")) == Visit()


def test_one_scan_and_days_that_cannot_be_are_refused(exams):
    with pytest.raises(UsageError, match="both scans are the same"):
        follow(exams[0], exams[0])
    for days in (-3, 0, math.nan, math.inf):
        with pytest.raises(UsageError, match="more than 0"):
            follow(*exams, days)
    done = CliRunner().invoke(app, ["follow", "a.mha", "b.mha", "--days", "nan"])  # before anything is read
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)


def test_results_made_in_different_ways_and_scans_with_warnings_are_noted(exams, made):
    before, now = exams
    other = replace(now.report, threshold=0.9, options={**now.report.options, "pipeline": 0}, warnings=("a gap",))
    notes = " | ".join(follow(before, replace(now, report=other), 100).warnings)
    assert "list nodules from probabilities of" in notes
    assert "different ways (pipeline)" in notes
    assert "the later scan: a gap" in notes
    assert "different ways" not in " ".join(made.warnings)


def test_without_dates_there_is_no_doubling_time(exams, made):
    undated = replace(made, days=None)
    assert run._warnings(*exams, made.alignment, None)[0].startswith("the days between the scans are unknown")
    assert follow_data(undated)["days"] is None
    assert Growth(0.3, 0.1, None).doubling_interval is None
    assert Growth(0.0, 0.1, 100).doubling_interval == (pytest.approx(100 * math.log(2) / 0.196), None)


def test_faint_is_the_weights_own_point():
    assert faint_threshold(Calibration(threshold=0.4, operating_points=((1.0, 0.4), (8.0, 0.05)))) == 0.05
    assert faint_threshold(Calibration(threshold=0.4)) == 0.1


def test_options_that_do_not_fit_are_refused(tmp_path):
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(UsageError, match="leave these options out"):
        read_exam(tmp_path / "a.json", None, series="#1")
    with pytest.raises(UsageError, match="is a scan itself"):
        read_exam(tmp_path / "a.mha", None, scan=tmp_path / "b.mha")
    done = CliRunner().invoke(app, ["follow", str(tmp_path / "no.mha"), str(tmp_path / "none.mha"), "-q"])
    assert done.exit_code == 3
    assert done.stderr.count("\n") == 1


def test_the_csv_states_where_a_missing_nodule_would_lie(made):
    rows = list(csv.DictReader(io.StringIO(follow_csv(made))))
    (gone,) = [row for row in rows if row["status"] == "gone"]
    place = [float(gone[f"current_{axis}"]) for axis in "XYZ"]
    assert np.linalg.norm(np.array(place) - moved(TRUTH[3][0])) < 4
    assert gone["current_diameter_mm"] == ""


@pytest.mark.slow
def test_saved_results_are_followed_from_the_command_line(exams, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for exam, name in zip(exams, ("before", "now"), strict=True):
        write_metaimage(exam.volume, tmp_path / f"{name}.mhd")
    model = TrainedModel("small", make_network("O"), InputSpec(spacing_mm=2.0, side=8), Calibration(threshold=0.45))
    save_model(model, tmp_path / "small.safetensors")

    def call(*words, code=0):
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == code, done.output + repr(done.exception)
        return done

    call("detect", "before.mhd", "--model", "small.safetensors", "-q")
    (tmp_path / "elsewhere").mkdir()
    for path in (*tmp_path.glob("before.mhd"), *tmp_path.glob("before.zraw")):
        path.rename(tmp_path / "elsewhere" / path.name)
    words = ("follow", "before.nodules.json", "now.mhd", "--model", "small.safetensors", "--days", 90)
    assert "cannot be read" in call(*words, code=3).stderr or "no such file" in call(*words, code=3).stderr
    done = call(*words, "--prior-scan", "elsewhere/before.mhd")
    data = json.loads((tmp_path / "before_to_now.follow.json").read_text())
    assert data["days"] == 90
    assert data["prior"]["weights"] == data["current"]["weights"]
    assert len(data["nodules"]) >= len(json.loads((tmp_path / "before.nodules.json").read_text())["nodules"])
    assert data["alignment"]["overlap"] > 0.9
    assert "│ 1" in done.stdout
    assert "exists already" in call(*words, "--prior-scan", "elsewhere/before.mhd", code=2).stderr
