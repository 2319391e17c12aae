"""The composition of batches."""

import numpy as np

from gcnn_cli.samples.sample import Sample

# Share of each kind among the samples of its class in a batch; the shares of absent kinds go to the others.
SHARES = {
    1: {"stack": 0.3, "chunk": 0.3, "cube": 0.1, "transplant": 0.25, "mark": 0.05},
    0: {"candidate": 0.7, "beside": 0.15, "chunk beside": 0.05, "sham": 0.1},
}


def slab_chances(samples: list[Sample], share: float) -> tuple[float, float]:
    """Return how often complete (negatives, positives) must lose slices for `share` of each class to lack some."""
    return _completing(_shares_of(samples, ("stack", "beside")), share)


def rim_chances(samples: list[Sample]) -> tuple[float, float]:
    """Return how often other (negatives, positives) must be narrowed for both to look like chunks equally often."""
    already = _shares_of(samples, ("chunk", "chunk beside"))
    return _completing(already, max(already))


def _shares_of(samples: list[Sample], kinds: tuple[str, ...]) -> tuple[float, float]:
    """Return the share of these kinds among (negatives, positives) as they are drawn."""
    found = {(s.label, s.kind) for s in samples}
    shares = []
    for label in (0, 1):
        present = {kind: w for kind, w in SHARES[label].items() if (label, kind) in found}
        total = sum(present.values())
        shares.append(sum(w for kind, w in present.items() if kind in kinds) / total if total else 0.0)
    return shares[0], shares[1]


def _completing(already: tuple[float, float], share: float) -> tuple[float, float]:
    """Return the chance for each of the others that brings both classes to the share."""
    negatives, positives = (float(np.clip((share - a) / (1 - a), 0, 1)) if a < 1 else 0.0 for a in already)
    return negatives, positives


class BatchSampler:
    """Draws balanced batches; within a kind, samples that the network gets wrong come more often.

    The weight of a sample is its running loss plus a floor: hard negatives are mined during training, without extra
    passes over the data.
    """

    def __init__(self, samples: list[Sample], floor: float = 0.05) -> None:
        self._groups = {
            label: {
                kind: np.array([n for n, s in enumerate(samples) if s.kind == kind and s.label == label])
                for kind in shares
            }
            for label, shares in SHARES.items()
        }
        self._floor = floor
        self.losses = np.full(len(samples), 0.7)

    def draw(self, size: int, rng: np.random.Generator) -> list[int]:
        """Draw the indices of a batch, half of each class."""
        return [*self._draw_class(1, size // 2, rng), *self._draw_class(0, size - size // 2, rng)]

    def update(self, indices: list[int], losses: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
        """Store the losses of the batch just trained, averaged with the earlier ones to damp noise."""
        self.losses[indices] = 0.5 * self.losses[indices] + 0.5 * np.minimum(losses, 3.0)

    def _draw_class(self, label: int, size: int, rng: np.random.Generator) -> list[int]:
        present = {kind: group for kind, group in self._groups[label].items() if len(group)}
        shares = np.array([SHARES[label][kind] for kind in present])
        kinds = rng.choice(list(present), size=size, p=shares / shares.sum())
        drawn = []
        for kind in kinds:
            group = present[kind]
            weights = self.losses[group] + self._floor
            drawn.append(int(rng.choice(group, p=weights / weights.sum())))
        return drawn
