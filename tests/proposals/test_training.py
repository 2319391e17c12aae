"""A proposal network is trained: its loss, its batches, and a run that can be stopped."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from gcnn_cli.errors import InputError, UsageError
from gcnn_cli.network import devices
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.network.proposal_weights import load_proposal_model
from gcnn_cli.network.proposals import ProposalNetwork, ProposalNetworkConfig
from gcnn_cli.network.weights import load_model
from gcnn_cli.proposals import training_run
from gcnn_cli.proposals.batches import BatchConfig, TileSampler
from gcnn_cli.proposals.scenes import Scene
from gcnn_cli.proposals.training_loop import ProposalTrainConfig, focal_loss, train_proposals
from gcnn_cli.proposals.training_run import ProposalRunConfig, run_proposal_training
from gcnn_cli.samples.donors import Donor
from gcnn_cli.samples.split import SplitConfig
from gcnn_cli.training.checkpoint import Checkpoint
from gcnn_cli.training.loop import Interrupted
from gcnn_cli.training.provenance import read_data_names

TINY = ProposalTrainConfig(
    ProposalNetworkConfig(group="C4", fields=(1, 1, 1, 1), head_fields=1),
    InputSpec(side=24),
    BatchConfig(chunks=1, cutouts=1, transplants=1, marks=1, lung=2),
    steps=6,
    rounds=1,
    save_every=2,
)
SHAPE = (40, 44, 48)
NONE = np.zeros((0, 4))


def scene(kind, seed, **values):
    """Noisy lung with a ball of 8 voxels in its middle."""
    rng = np.random.default_rng(seed)
    center = np.array(SHAPE) / 2
    inside = np.linalg.norm(np.indices(SHAPE).transpose(1, 2, 3, 0) - center, axis=3) < 4
    hu = (np.where(inside, 30, -850) + rng.normal(0, 20, SHAPE)).astype(np.int16)
    donor = None
    if kind == "cut-out":
        donor = Donor(hu, inside, center, "p", "n", 0, 8, hu[:8, :8, :8], np.zeros((8, 8, 8), np.float16), None, 8.0)
    if kind == "scan":
        places = np.argwhere(np.ones(SHAPE, bool)).astype(float)
        values = {"lung": places[::97], "hosts": (places[::101], places[::103], places[::107]), **values}
    nodules = np.array([[*center, 8.0]])
    return Scene(
        hu, nodules, NONE, np.ones(SHAPE, bool), kind, f"patient {seed}", f"scene {seed}", donor=donor, **values
    )


def scenes():
    return [scene("scan", 0), scene("scan", 1, labelled=False), scene("chunk", 2), scene("cut-out", 3)]


def values_of(network):
    return torch.cat([value.flatten().double() for value in network.state_dict().values()])


def test_each_nodule_counts_the_same_whatever_its_size():
    logits = torch.zeros(1, 4, 4, 4)
    positive = torch.zeros_like(logits)
    positive[0, 0, 0, 0] = 1
    positive[0, 2:, 2:, 2:] = 1 / 8
    negative = torch.zeros_like(logits, dtype=torch.bool)
    negative[0, 0, 3, 3] = True
    of_nodules, rest = focal_loss(logits, positive, negative, torch.tensor([False]))
    assert float(of_nodules) == pytest.approx(0.25 * np.log(2))
    assert float(rest) == pytest.approx(0.25 * np.log(2) / 2)  # one place, two nodules


def test_a_sure_place_of_a_scan_without_labels_is_no_negative():
    logits = torch.full((2, 1, 1, 1), 3.0)
    everywhere = torch.ones_like(logits, dtype=torch.bool)
    none = torch.zeros_like(logits)
    _, both = focal_loss(logits, none, everywhere, torch.tensor([False, False]))
    _, one = focal_loss(logits, none, everywhere, torch.tensor([False, True]))
    assert float(one) == pytest.approx(float(both) / 2)


def test_a_batch_holds_every_kind():
    sampler = TileSampler(scenes(), TINY.geometry, TINY.batch)
    tiles = sampler.draw(np.random.default_rng(0))
    assert [tile.positive.sum() > 0.4 for tile, _ in tiles[:4]] == [True] * 4
    assert all(tile.hu.shape == (24,) * 3 for tile, _ in tiles)


def test_what_the_data_lack_is_replaced():
    sampler = TileSampler([scene("scan", 0)], TINY.geometry, TINY.batch)
    assert len(sampler.draw(np.random.default_rng(0))) == 6
    with pytest.raises(InputError, match="needs scans"):
        TileSampler([scene("chunk", 0)], TINY.geometry, TINY.batch)


@pytest.mark.parametrize(
    ("kinds", "nodules"),
    [(["scan"], 4), (["scan", "chunk"], 2), (["scan", "cut-out"], 3), (["scan", "chunk", "cut-out"], 4)],
)
def test_marks_stand_in_for_cutouts_where_there_are_none(kinds, nodules):
    """Three quarters of a batch would be lung alone. With cut-outs of either kind there are nodules enough."""
    sampler = TileSampler([scene(kind, n) for n, kind in enumerate(kinds)], TINY.geometry, replace(TINY.batch, lung=0))
    drawn = []
    sampler._place = lambda kind, number, rng, place=sampler._place: drawn.append(kind) or place(kind, number, rng)
    sampler.draw(np.random.default_rng(0))
    transplants = 1 if "cut-out" in kinds else 0
    assert sum(kind != "lung" for kind in drawn) + transplants == nodules
    assert ("lung" in drawn) == (nodules < 4)


def test_a_scan_without_a_place_for_transplants_gets_none():
    nowhere = (np.zeros((0, 3)),) * 3
    sampler = TileSampler([scene("scan", 0, hosts=nowhere), scene("cut-out", 1)], TINY.geometry, TINY.batch)
    assert len(sampler.draw(np.random.default_rng(0))) == 6


def test_a_stopped_run_goes_on_to_the_same_weights(tmp_path):
    unbroken = train_proposals(scenes(), TINY, lambda _: None)
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", "run")
    seen = []
    with pytest.raises(Interrupted):
        train_proposals(scenes(), TINY, seen.append, checkpoint=checkpoint, should_stop=lambda: len(seen) == 5)
    resumed = train_proposals(scenes(), TINY, seen.append, checkpoint=checkpoint)
    assert [line.step for line in seen] == [1, 2, 3, 4, 5, 6]
    assert torch.equal(values_of(unbroken), values_of(resumed))


def test_training_takes_float32_where_bfloat16_would_be_emulated(monkeypatch):
    lower = []
    forward = ProposalNetwork.forward
    monkeypatch.setattr(devices, "has_fast_bfloat16", lambda _: False)
    monkeypatch.setattr(
        ProposalNetwork,
        "forward",
        lambda self, x: lower.append(torch.is_autocast_enabled("cpu")) or forward(self, x),
    )
    train_proposals(scenes(), TINY, lambda _: None)
    assert lower == [False] * TINY.steps


def test_negatives_are_mined_away_from_every_mark(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        TileSampler, "draw", lambda self, rng, draw=TileSampler.draw: drawn.append(dict(self.hard)) or draw(self, rng)
    )
    train_proposals(scenes(), TINY, lambda _: None)
    assert [len(hard) for hard in drawn] == [0, 0, 0, 2, 2, 2]
    for number, places in drawn[-1].items():
        nodule = scenes()[number].nodules[0]
        assert (np.linalg.norm(places - nodule[:3], axis=1) > nodule[3] / 2 + 3).all()


def test_a_run_writes_weights_that_say_where_they_come_from(tmp_path, monkeypatch):
    monkeypatch.setattr(training_run, "read_scenes", lambda *given, strict: (scenes(), ("patient 9",), given[-1]))
    config = ProposalRunConfig((tmp_path,), tmp_path / "small.safetensors", TINY, name_data=True)
    made = run_proposal_training(config)
    loaded = load_proposal_model(str(config.out))
    assert torch.equal(values_of(made.network), values_of(loaded.network))
    assert loaded.provenance["held_out_patients"] == ["patient 9"]
    assert loaded.provenance["training_patients"] == [f"patient {n}" for n in range(4)]
    assert len((config.folder / "metrics.jsonl").read_text().splitlines()) == 3
    assert json.loads((config.folder / "metrics.jsonl").read_text().splitlines()[0])["step"] == 2
    assert not config.checkpoint_path.exists()
    assert read_data_names(config.folder, loaded.sha256)["held_out_patients"] == ["patient 9"]
    with pytest.raises(UsageError, match="exists already"):
        ProposalRunConfig((tmp_path,), config.out)


def test_a_resumed_run_writes_the_line_of_a_step_once(tmp_path, monkeypatch):
    monkeypatch.setattr(training_run, "read_scenes", lambda *given, strict: (scenes(), (), given[-1]))
    out = tmp_path / "small.safetensors"
    folder = ProposalRunConfig((tmp_path,), out, TINY).folder
    folder.mkdir()
    # A run that was killed after this line and before its checkpoint.
    (folder / "metrics.jsonl").write_text('{"step": 2, "nodule_loss": 9.0}\n')
    run_proposal_training(ProposalRunConfig((tmp_path,), out, TINY, resume=True))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert lines[0]["nodule_loss"] != 9.0


def test_weights_name_nobody_unless_asked_to(tmp_path, monkeypatch):
    monkeypatch.setattr(training_run, "read_scenes", lambda *given, strict: (scenes(), ("patient 9",), given[-1]))
    split = SplitConfig(hold_out=("patient 9",))
    out = tmp_path / "small.safetensors"
    run_proposal_training(ProposalRunConfig((tmp_path,), out, TINY, split))
    provenance = load_proposal_model(str(out)).provenance
    assert provenance["counts"]["training_patients"] == 4
    assert "patient" not in json.dumps(provenance).replace("_patients", "")


def test_proposal_weights_are_no_scoring_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(training_run, "read_scenes", lambda *given, strict: (scenes(), (), given[-1]))
    out = tmp_path / "small.safetensors"
    run_proposal_training(ProposalRunConfig((tmp_path,), out, TINY))
    with pytest.raises(Exception, match="format 3"):
        load_model(str(out))
    with pytest.raises(Exception, match="format 1"):
        load_proposal_model("octahedral")


def test_tiles_that_the_network_cannot_take_are_refused():
    with pytest.raises(InputError, match=r"32 \+ 4 n voxels, got 30"):
        ProposalTrainConfig(input=InputSpec(side=30))


@pytest.mark.gpu
def test_a_network_trained_on_the_gpu_ends_on_the_cpu(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    device = torch.device("cuda")
    checkpoint = Checkpoint(tmp_path / "checkpoint.pt", "run")
    stops = iter([False, False, False, True])
    with pytest.raises(Interrupted):
        train_proposals(
            scenes(), TINY, lambda _: None, checkpoint=checkpoint, should_stop=lambda: next(stops), device=device
        )
    network = train_proposals(scenes(), TINY, lambda _: None, checkpoint=checkpoint, device=device)
    assert {value.device.type for value in network.state_dict().values()} == {"cpu"}
    assert torch.isfinite(values_of(network)).all()
