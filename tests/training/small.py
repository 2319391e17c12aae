"""Small trainings: cubes to train on, settings, and the options of `gcnn train`."""

import numpy as np

from gcnn_cli.network.architecture import NetworkConfig
from gcnn_cli.network.contract import InputSpec
from gcnn_cli.samples.sample import Sample
from gcnn_cli.training.loop import TrainConfig

SIDE = 12
CONFIG = TrainConfig(
    network=NetworkConfig(group="D4", fields=(2, 2), pool_after=(1,), side=8, head_fields=4, dropout=0.2),
    input=InputSpec(side=8),
    steps=12,
    batch_size=4,
    validate_every=4,
)


def sample(label, kind="", n=0, series="", patient=""):
    """Return a bright (nodule) or dark (negative) noisy cube."""
    hu = (np.random.default_rng(n).normal(0 if label else -800, 200, (SIDE,) * 3)).astype(np.int16)
    kind = kind or ("cube" if label else "candidate")
    return Sample(lambda: hu, SIDE, label, kind, patient or f"patient-{n}", series or f"series-{n}", 0, SIDE)


TRAINING = [sample(n % 2, n=n) for n in range(16)]
VALIDATION = [sample(n % 2, n=100 + n, series="a") for n in range(8)]


def arguments(data, out, *options):
    """Return the command line of a training on the fixture `data`, with one patient held out."""
    base = ["train", "--data", data / "data", "--out", out, "--config", data / "quick.toml"]
    fixed = ["--cache", data / "cache", "--hold-out", "LIDC-IDRI-0002", "--hold-out-share", 0, "--threads", 1]
    return [str(part) for part in (*base, *fixed, *options)]
