"""The arms of the data-efficiency experiment: networks that differ in symmetry, augmentation or width.

Every arm is trained by the same recipe for the same number of steps. All arms but one augment by turning patches by
the elements of Oh, so that the gain of a group is not a lack of augmentation in the plain CNN.
"""

from dataclasses import dataclass, replace

from gcnn_cli.errors import UsageError
from gcnn_cli.network.architecture import FIELDS, NetworkConfig
from gcnn_cli.symmetry.groups import make_group
from gcnn_cli.training.loop import TrainConfig


@dataclass(frozen=True)
class Arm:
    """One kind of training. pooled_over: groups whose test-time pooling is also measured on the trained network."""

    name: str
    group: str
    fields: tuple[int, ...]
    turn_group: str = "Oh"
    pooled_over: tuple[str, ...] = ()

    def configure(self, config: TrainConfig, seed: int) -> TrainConfig:
        """Return the settings with this arm's network and augmentation, and a run's seed."""
        network = replace(config.network, group=self.group, fields=self.fields)
        return replace(config, network=network, augment=replace(config.augment, turn_group=self.turn_group), seed=seed)


# The wide plain CNN has as many real channels as O's network and does the same arithmetic; without the expansion of
# the filters a step takes nine tenths of the time. The other arms have about as many parameters as O's network.
_WIDE = tuple(make_group("O").order * fields for fields in FIELDS["O"])


def make_arms(names: tuple[str, ...], network: NetworkConfig) -> tuple[Arm, ...]:
    """Make arms by name: a group, `unturned` (plain, no augmentation by turning) or `wide` (plain, O's compute).

    Fields set in the recipe replace those of every group (for quick trials). Raises UsageError for an unknown name.
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
