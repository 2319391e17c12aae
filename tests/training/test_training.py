"""Samples are as documented, splits keep patients apart, and a short run makes usable weights."""

import csv
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from gcnn_cli.errors import InputError, ModelError
from gcnn_cli.labels.entries import CutoutEntry
from gcnn_cli.labels.index import read_index
from gcnn_cli.labels.patients import patient_of
from gcnn_cli.network.architecture import NetworkConfig
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.phantom import write_phantom
from gcnn_cli.samples.donors import read_donor
from gcnn_cli.samples.duplicates import identify_patients
from gcnn_cli.samples.preprocessed import preprocess_scan
from gcnn_cli.samples.sample import Sample, SampleConfig
from gcnn_cli.samples.scan_samples import scan_samples
from gcnn_cli.samples.slabs import extend_slab
from gcnn_cli.samples.split import is_held_out
from gcnn_cli.samples.transplant import blend, choose_places, soften
from gcnn_cli.training import augment
from gcnn_cli.training.augment import AugmentConfig, Chances, make_batch, plain_batch
from gcnn_cli.training.loop import TrainConfig, train_network
from gcnn_cli.training.sampling import BatchSampler, rim_chances, slab_chances
from gcnn_cli.training.validation import validate

SPEC = InputSpec(side=16)
SIDE = 24


def ball_cube(radius, side=SIDE, background=-850.0, seed=0):
    """Return a ball of tissue in noisy lung, int16 [side, side, side], and its mask."""
    rng = np.random.default_rng(seed)
    distance = np.linalg.norm(np.indices((side,) * 3) - (side - 1) / 2, axis=0)
    share = np.clip(radius + 0.5 - distance, 0, 1)
    hu = background + share * (40 - background) + rng.normal(0, 20, share.shape)
    return hu.astype(np.int16), share > 0.5


def sample(label, kind, seed=0, first=0, stop=SIDE):
    hu, _ = ball_cube(3 if label else 0, seed=seed)
    return Sample(lambda: hu, SIDE, label, kind, f"patient-{seed}", f"series-{seed}", first, stop)


def write_stack(folder, name, seed=0, slices=6):
    hu, mask = ball_cube(4, side=48, seed=seed)
    inside = slice(24 - slices // 2, 24 + slices // 2)
    np.savez(
        folder / f"{name}.npz",
        hu=hu[inside],
        mask=mask[inside],
        spacing_zyx=np.array([1.25, 0.7, 0.7]),
        centre_zyx=np.array([slices / 2 - 0.5, 23.5, 23.5]),
    )


@pytest.fixture(scope="module")
def data(phantom, tmp_path_factory):
    """Write a small labeled folder: two scans of two patients and some stacks."""
    folder = tmp_path_factory.mktemp("data")
    write_phantom(phantom, folder / "a", name="LIDC-IDRI-0001")
    write_phantom(phantom, folder / "b", name="LIDC-IDRI-0002")
    (folder / "nodules").mkdir()
    for n in range(4):
        write_stack(folder / "nodules", f"LIDC-IDRI-000{1 + n % 2}_R_{n}", seed=n)
    return folder


# Index


def test_the_index_finds_scans_marks_and_cutouts(data, phantom):
    index = read_index([data])
    assert [scan.name for scan in index.scans] == ["LIDC-IDRI-0001", "LIDC-IDRI-0002"]
    assert all(scan.labelled and len(scan.nodules) == len(phantom.nodules) for scan in index.scans)
    assert index.patients == ("LIDC-IDRI-0001", "LIDC-IDRI-0002")
    assert len(index.cutouts) == 4


@pytest.mark.parametrize(
    ("name", "patient"),
    [("LIDC-IDRI-0132a", "LIDC-IDRI-0132"), ("LIDC-IDRI-0132b", "LIDC-IDRI-0132"), ("R01-001", "R01-001")],
)
def test_two_dates_are_one_patient(name, patient):
    assert patient_of(name) == patient


def test_unusable_folders_are_refused(tmp_path, phantom):
    with pytest.raises(InputError, match="no such folder"):
        read_index([tmp_path / "nothing"])
    with pytest.raises(InputError, match="no usable scan"):
        read_index([tmp_path])
    write_phantom(phantom, tmp_path / "a")
    (tmp_path / "a" / "annotations.csv").write_text("seriesuid;coordX\nthorax;1\n")
    with pytest.raises(InputError, match="annotations.csv, line 1: no column coordY, coordZ, diameter_mm"):
        read_index([tmp_path])


def test_an_unmeasured_mark_counts_as_ten_millimeters(tmp_path, phantom):
    write_phantom(phantom, tmp_path)
    (tmp_path / "annotations_excluded.csv").write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\nthorax,1,2,3,-1\n")
    (scan,) = read_index([tmp_path]).scans
    assert scan.excluded == ((1.0, 2.0, 3.0, -1.0),)


# Splits


def test_adding_patients_moves_no_other_patient():
    names = [f"patient-{n}" for n in range(2000)]
    held = [name for name in names if is_held_out(name, 0.2, 0)]
    assert 0.17 < len(held) / len(names) < 0.23
    assert held != [name for name in names if is_held_out(name, 0.2, 1)]
    assert not any(is_held_out(name, 0.0, 0) for name in names)


def test_a_cube_is_known_by_its_pixels(tmp_path):
    rng = np.random.default_rng(0)
    entries = []
    for n in range(3):
        texture = ndimage.gaussian_filter(rng.normal(0, 2000, (9, 60, 60)), (0, 1.5, 1.5))
        hu = np.round(np.clip(-600 + texture, -1000, 400)).astype(np.int16)
        np.savez(
            tmp_path / f"LIDC-IDRI-000{n}_R_1.npz",
            hu=hu,
            mask=hu > -2000,
            spacing_zyx=np.ones(3),
            centre_zyx=np.array([4.0, 30.0, 30.0]),
        )
        entries.append(CutoutEntry(tmp_path / f"LIDC-IDRI-000{n}_R_1.npz", f"{n}", f"LIDC-IDRI-000{n}"))
    cube = np.moveaxis(hu[:, 5:56, 5:56], 0, 2)  # the last stack again, as (y, x, z)
    np.savez(tmp_path / "cube.npz", hu=cube, mask=np.ones(cube.shape, bool))
    other = np.clip(-600 + ndimage.gaussian_filter(rng.normal(0, 4000, cube.shape), 1.5), -1000, 400).astype(np.int16)
    np.savez(tmp_path / "other.npz", hu=other, mask=np.ones(cube.shape, bool))
    entries += [CutoutEntry(tmp_path / "cube.npz", "cube", ""), CutoutEntry(tmp_path / "other.npz", "other", "")]
    patients = {entry.name: entry.patient for entry in identify_patients(entries)}
    assert patients["cube"] == "LIDC-IDRI-0002"
    assert patients["other"] == ""
    # Chunks, which have no mask, are as good to know a cube by; of an unknown patient they stay what they are.
    with np.load(entries[2].path) as data:
        np.savez(tmp_path / "chunk.npz", **{name: data[name] for name in data.files if name != "mask"})
    chunk = CutoutEntry(tmp_path / "chunk.npz", "chunk", "LIDC-IDRI-0009", masked=False)
    patients = {entry.name: entry.patient for entry in identify_patients([chunk, *entries[:2], *entries[3:]])}
    assert patients["cube"] == "LIDC-IDRI-0009"
    # What a cache holds is of these files as they are.
    cache = tmp_path / "cache"
    asked = [chunk, *entries[:2], *entries[3:]]
    assert identify_patients(asked, cache) == identify_patients(asked, cache)
    (note,) = cache.iterdir()
    note.write_text('{"cube": "LIDC-IDRI-0001"}')
    assert {e.name: e.patient for e in identify_patients(asked, cache)}["cube"] == "LIDC-IDRI-0001"
    os.utime(entries[3].path, (1, 1))
    assert {e.name: e.patient for e in identify_patients(asked, cache)}["cube"] == "LIDC-IDRI-0009"
    unknown = replace(chunk, patient="")
    patients = {entry.name: entry.patient for entry in identify_patients([unknown, *entries])}
    assert (patients["chunk"], patients["cube"]) == ("", "LIDC-IDRI-0002")


# Samples


def test_a_scan_gives_marks_and_candidates_away_from_them(data, phantom):
    entry = read_index([data]).scans[0]
    config = SampleConfig(spacing_mm=2.0, side=SIDE, candidates_per_scan=200, transplants_per_scan=6, shams_per_scan=3)
    donors = [read_donor(cutout, config) for cutout in read_index([data]).cutouts]
    samples = scan_samples(preprocess_scan(entry, config, 0), entry, donors, config, seed=0)
    kinds = [s.kind for s in samples]
    assert kinds.count("mark") == len(phantom.nodules)
    assert kinds.count("candidate") > 20
    assert (kinds.count("transplant"), kinds.count("sham")) == (6, 3)
    for s in samples:
        assert s.label == (s.kind in ("mark", "transplant"))
        assert s.hu.shape == (SIDE,) * 3
        assert s.complete
    marks = [s.hu[11:13, 11:13, 11:13].mean() for s in samples if s.kind == "mark"]
    assert min(marks) > -750


def test_a_donor_is_centered_on_its_nodule(data):
    donor = read_donor(read_index([data]).cutouts[0], SampleConfig(side=SIDE))
    assert donor.mask[tuple(np.round(donor.center_zyx).astype(int))]
    assert donor.stop - donor.first == donor.hu.shape[0] < SIDE  # the slices that were measured


def test_a_donor_keeps_no_larger_array_alive(data):
    donor = read_donor(read_index([data]).cutouts[0], SampleConfig(side=SIDE))
    for name in ("hu", "mask", "cube", "weight"):
        array = getattr(donor, name)
        base = array if array.base is None else array.base
        assert base.nbytes <= 2 * array.nbytes, f"{name} is a view of {base.nbytes} bytes"


def test_a_transplant_is_the_donor_inside_and_the_host_outside():
    hu, mask = ball_cube(5)
    host = np.full(hu.shape, -870, np.float32)
    mixed = blend(host, hu.astype(np.float32), soften(mask))
    assert np.allclose(mixed[11:13, 11:13, 11:13], hu[11:13, 11:13, 11:13], atol=1)
    far = np.linalg.norm(np.indices(hu.shape) - 11.5, axis=0) > 10
    assert np.allclose(mixed[far], -870, atol=1)


def test_a_transplant_leaves_no_dark_ring_in_a_wall():
    hu, mask = ball_cube(5)  # tissue in lung
    wall = np.full(hu.shape, 40, np.float32)
    mixed = blend(wall, hu.astype(np.float32), soften(mask))
    assert mixed.min() >= 40


def test_places_lie_in_the_lung_by_thirds(phantom):
    places, kinds = choose_places(phantom.volume.hu, phantom.lungs, 30, np.random.default_rng(0))
    assert np.bincount(kinds).tolist() == [10, 10, 10]
    assert phantom.lungs[tuple(places.T)].all()


def test_lungs_without_vessels_have_no_places_at_vessels():
    lungs = np.pad(np.ones((30, 30, 30), bool), 3)
    places, kinds = choose_places(np.full(lungs.shape, -850), lungs, 30, np.random.default_rng(0))
    assert np.bincount(kinds, minlength=3).tolist() == [10, 10, 0]
    depth = ndimage.distance_transform_edt(lungs)[tuple(places.T)]
    assert (depth[kinds == 0] > 8).all()
    assert (depth[kinds == 1] <= 4).all()


def test_missing_slices_keep_the_wall_and_lose_the_nodule():
    cube = np.full((24, 24, 24), -850, np.float32)
    cube[:, :, :8] = 40  # wall
    cube[10:14, 10:14, 14:18] = 40  # nodule, cut through by the slab
    extended = extend_slab(cube, 11, 13, np.random.default_rng(0))
    assert np.array_equal(extended[11:13], cube[11:13])
    assert (extended[:11, :, :5] > -100).all()
    assert (extended[:11, 10:14, 14:18] < -700).all()


def test_a_cube_lower_than_a_stack_keeps_its_nodule():
    """Heights are drawn up to 30 mm."""
    hu, _ = ball_cube(3, side=12)
    low = Sample(lambda: hu, 12, 1, "cube", "p", "s", 0, 12)
    for seed in range(50):
        cube = augment._with_slab(low, 1.0, InputSpec(side=8), np.random.default_rng(seed))
        assert (cube[5:7, 5:7, 5:7] > -100).all()


def test_both_classes_lose_slices_equally_often():
    samples = [sample(1, "stack", stop=8), sample(1, "cube"), sample(0, "candidate"), sample(0, "beside", stop=8)]
    negatives, positives = slab_chances(samples, 0.5)
    # stacks: 0.3 of 0.4 positives lose slices already; besides: 0.15 of 0.85 negatives.
    assert positives == 0
    assert 0.15 / 0.85 + (1 - 0.15 / 0.85) * negatives == pytest.approx(0.5)


def test_both_classes_lose_their_rim_as_often_as_chunks_do():
    samples = [sample(1, "chunk"), sample(1, "cube"), sample(0, "candidate"), sample(0, "chunk beside")]
    negatives, positives = rim_chances(samples)
    assert positives == 0  # 0.3 of 0.4 have none already
    assert 0.05 / 0.75 + (1 - 0.05 / 0.75) * negatives == pytest.approx(0.3 / 0.4)
    assert rim_chances(samples[1:3]) == (0, 0)


def test_batches_are_balanced_and_come_from_their_seed():
    samples = [sample(n % 2, "cube" if n % 2 else "candidate", seed=n) for n in range(20)]
    sampler = BatchSampler(samples)
    drawn = sampler.draw(10, np.random.default_rng(1))
    assert sum(samples[n].label for n in drawn) == 5
    assert drawn == sampler.draw(10, np.random.default_rng(1))
    sampler.update([0], np.array([3.0], np.float32))
    often = [n for seed in range(50) for n in sampler.draw(10, np.random.default_rng(seed))]
    assert often.count(0) > 2 * often.count(2)  # what is wrong comes again


def test_blur_smooths_every_cube_along_and_across_its_slices_by_its_own_widths():
    cube = np.zeros((SIDE,) * 3, np.float32)
    cube[(SIDE // 2,) * 3] = 1000.0
    blurred = augment._blur(np.stack([cube] * 64), np.full(3, 0.8), np.random.default_rng(0))
    np.testing.assert_allclose(blurred.sum(axis=(1, 2, 3)), 1000.0, rtol=1e-5)
    place = np.arange(SIDE) - SIDE // 2
    widths = np.array(
        [[(other.sum(axis=(0, 1)) * place**2).sum() / 1000 for other in (b.transpose(1, 2, 0), b.transpose(0, 2, 1), b)]
         for b in blurred]
    )  # fmt: skip
    np.testing.assert_allclose(widths[:, 1], widths[:, 2], atol=1e-4)  # y as x
    same = widths < 1e-6
    assert 0.3 < same[:, 0].mean() < 0.7
    assert 0.3 < same[:, 1].mean() < 0.7
    assert (same[:, 0] != same[:, 1]).any()
    assert 0.4 < widths.max() <= 0.8**2 + 1e-3


def test_an_augmented_batch_is_a_batch_of_patches():
    samples = [sample(1, "cube"), sample(0, "candidate"), sample(1, "stack", first=8, stop=16)]
    patches, labels = make_batch(samples, SPEC, AugmentConfig(), Chances((0.5, 0.5)), np.random.default_rng(0))
    again, _ = make_batch(samples, SPEC, AugmentConfig(), Chances((0.5, 0.5)), np.random.default_rng(0))
    assert patches.shape == (3, 1, 16, 16, 16)
    assert torch.equal(patches, again)
    assert labels.tolist() == [1, 0, 1]
    assert patches.abs().max() <= 1
    assert plain_batch(samples, SPEC).shape == (3, 1, 16, 16, 16)


# Training


CONFIG = TrainConfig(
    network=NetworkConfig(group="D4", fields=(2, 2), pool_after=(1,), side=16, head_fields=4),
    input=SPEC,
    steps=30,
    batch_size=8,
    validate_every=15,
)


def test_a_short_run_learns_balls_and_repeats_itself():
    training = [sample(n % 2, "cube" if n % 2 else "candidate", seed=n) for n in range(40)]
    validation = [sample(n % 2, "cube" if n % 2 else "candidate", seed=100 + n) for n in range(20)]
    lines = []
    first, validations = train_network(training, validation, CONFIG, lines.append)
    again, _ = train_network(training, validation, CONFIG, lambda _: None)
    assert [line.step for line in lines] == list(range(1, 31))
    assert [line.step for line in validations] == [15, 30]
    assert validate(first, validation, SPEC)["auc"] > 0.95
    for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_training_that_diverges_is_refused():
    training = [sample(n % 2, "cube" if n % 2 else "candidate", seed=n) for n in range(40)]
    with pytest.raises(ModelError, match=r"the training diverged at step \d+: set a lower learning_rate"):
        train_network(training, [], replace(CONFIG, learning_rate=1e30), lambda _: None)


def test_one_class_is_not_enough():
    with pytest.raises(InputError, match="there are no nodules"):
        train_network([sample(0, "candidate")], [], CONFIG, lambda _: None)


@pytest.mark.data
def test_the_shared_folder_is_read_as_its_readme_says(shared_data):
    index = read_index([shared_data])
    names = {scan.name: scan for scan in index.scans}
    assert len(index.cutouts) == 827 + 134 + 262
    assert sum(entry.patient == "" for entry in index.cutouts) == 134
    assert sum(not entry.masked for entry in index.cutouts) == 262
    kept_apart = {"LIDC-IDRI-0004", "LIDC-IDRI-0007", "LIDC-IDRI-0010"}  # for an independent test
    assert not kept_apart & set(index.patients)
    assert names["LIDC-IDRI-0132a"].patient == names["LIDC-IDRI-0132b"].patient
    with (shared_data / "annotations.csv").open() as file:
        assert sum(len(scan.nodules) for scan in index.scans) == len(list(csv.DictReader(file)))
    assert not names["R01-001"].labelled
