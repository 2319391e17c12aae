"""One training run of a proposal network, from folders to a weights file. It can be stopped and resumed.

Beside the weights file `NAME.safetensors`, the folder `NAME.run` holds `metrics.jsonl`, the last checkpoint and the
names of the data (`data.json`).
"""

import json
import logging
import platform
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from gcnn_cli import __version__
from gcnn_cli.files import make_folder
from gcnn_cli.network.devices import precision_name
from gcnn_cli.network.proposal_weights import ProposalModel, save_proposal_model
from gcnn_cli.proposals.scenes import read_scenes
from gcnn_cli.proposals.training_loop import ProposalProgress, ProposalTrainConfig, train_proposals
from gcnn_cli.samples.split import SplitConfig
from gcnn_cli.scan.resample import search_spacing
from gcnn_cli.training.checkpoint import Checkpoint, fingerprint
from gcnn_cli.training.metrics import MetricLines
from gcnn_cli.training.provenance import write_names
from gcnn_cli.training.run_files import check_run_files, checkpoint_path, run_folder

log = logging.getLogger("gcnn")


@dataclass(frozen=True)
class ProposalRunConfig:
    """Input and output of a run. Raises UsageError for an existing file that is neither resumed nor overwritten.

    name_data: name series and patients in the weights file
    resume:    continue from the checkpoint of an earlier run
    strict:    raise InputError for any problem with the data
    """

    data: tuple[Path, ...]
    out: Path
    train: ProposalTrainConfig = field(default_factory=ProposalTrainConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    name_data: bool = False
    overwrite: bool = False
    resume: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        check_run_files(self.out, overwrite=self.overwrite, resume=self.resume)

    @property
    def folder(self) -> Path:
        """Folder of everything that the run keeps except the weights."""
        return run_folder(self.out)

    @property
    def checkpoint_path(self) -> Path:
        """Path of the run's checkpoint."""
        return checkpoint_path(self.out)


def run_proposal_training(
    config: ProposalRunConfig,
    *,
    watch: Callable[[ProposalProgress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    device: torch.device | None = None,
) -> ProposalModel:
    """Read the scenes, train the network and write its weights. `watch` is called with every step.

    device: default: the CPU

    Raises InputError for data that cannot be learned from, OutputError, and Interrupted after a request to stop.
    """
    started = time.monotonic()
    device = device or torch.device("cpu")
    make_folder(config.folder)  # now, not after an hour of training
    spacing_mm = search_spacing(config.train.input.spacing_mm)
    scenes, held_out, split = read_scenes(list(config.data), spacing_mm, config.split, strict=config.strict)
    kinds = dict(Counter(scene.kind for scene in scenes))
    log.info("training: %s", kinds)
    patients = sorted({scene.patient for scene in scenes})
    series = sorted(scene.name for scene in scenes if scene.kind == "scan")
    recipe = json.loads(json.dumps(asdict(config.train)))
    precision = precision_name(device)
    labels = [(scene.name, scene.nodules.tolist(), scene.unsure.tolist()) for scene in scenes]
    checkpoint = Checkpoint(config.checkpoint_path, fingerprint(recipe, patients, series, labels, precision))
    if not config.resume:
        checkpoint.path.unlink(missing_ok=True)
    metrics = MetricLines(config.folder / "metrics.jsonl", resume=config.resume)

    def notify(progress: ProposalProgress) -> None:
        watch(progress)
        if progress.step % config.train.save_every == 0:
            metrics.write(asdict(progress))

    network = train_proposals(
        scenes, config.train, notify, checkpoint=checkpoint, should_stop=should_stop, device=device
    )
    names = {
        "labelled_series": sorted(s.name for s in scenes if s.kind == "scan" and s.labelled),
        "training_series": series,
        "training_patients": patients,
        "held_out_patients": list(held_out),
    }
    hold_out = split.hold_out if config.name_data else len(split.hold_out)
    provenance = {
        "tool": f"gcnn {__version__}",
        "torch": torch.__version__,
        "machine": platform.machine(),
        "precision": precision,
        "recipe": recipe,
        "split": {**asdict(split), "hold_out": hold_out},
        **(names if config.name_data else {}),
        "counts": {name: len(values) for name, values in names.items()},
        "scenes": kinds,
        "hours": round((time.monotonic() - started) / 3600, 3),
    }
    model = ProposalModel(config.out.stem, network, config.train.input, provenance)
    sha256 = save_proposal_model(model, config.out, overwrite=config.overwrite)
    write_names(names, config.folder, sha256)
    checkpoint.path.unlink(missing_ok=True)  # the run is finished
    log.info("%s: sha256 %s", config.out, sha256)
    return model
