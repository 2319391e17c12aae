"""What the data-efficiency experiment compares: networks that differ in their symmetry, or in what stands for it.

Every arm is trained by the same recipe and number of steps. Turning patches by the elements of Oh is part of
the recipe of all but one, so that the gain of a group is not the lack of augmentation in the plain CNN.
"""

from dataclasses import dataclass, replace

from gcnn_cli.errors import UsageError
from gcnn_cli.network.architecture import FIELDS, NetworkConfig
from gcnn_cli.symmetry.groups import make_group
from gcnn_cli.training.loop import TrainConfig


@dataclass(frozen=True)
class Arm:
    """One kind of training. pooled_over: groups whose test-time pooling is measured on the same network too."""

    name: str
    group: str
    fields: tuple[int, ...]
    turn_group: str = "Oh"
    pooled_over: tuple[str, ...] = ()

    def configure(self, config: TrainConfig, seed: int) -> TrainConfig:
        """The recipe with this arm's network and a run's seed."""
        network = replace(config.network, group=self.group, fields=self.fields)
        return replace(config, network=network, augment=replace(config.augment, turn_group=self.turn_group), seed=seed)


# The wide plain CNN has as many real channels as O's network: the same arithmetic, and a step takes nine tenths of
# its time (the expansion of the filters is what is missing). The others have about O's parameters.
_WIDE = tuple(make_group("O").order * fields for fields in FIELDS["O"])


def make_arms(names: tuple[str, ...], network: NetworkConfig) -> tuple[Arm, ...]:
    """Arms by name: a group, `unturned` (plain, no augmentation by turning) or `wide` (plain, O's compute).

    Where the recipe's network has fields of its own, they stand for every group's (a quick trial). Raises
    UsageError for an unknown name.
    """
    fields = None if network.fields == FIELDS[network.group] else network.fields
    arms = {group: Arm(group, group, fields or widths) for group, widths in FIELDS.items()}
    arms["trivial"] = replace(arms["trivial"], pooled_over=("O",))
    arms["unturned"] = replace(arms["trivial"], name="unturned", turn_group="trivial", pooled_over=())
    arms["wide"] = Arm("wide", "trivial", tuple(2 * width for width in fields) if fields else _WIDE)
    unknown = [name for name in names if name not in arms]
    if unknown:
        raise UsageError(f"unknown arm {unknown[0]!r}: choose from {', '.join(arms)}")
    return tuple(arms[name] for name in names)
