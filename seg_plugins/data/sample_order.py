"""Which record stands at each position of the sample stream: a function of seed and position."""

from __future__ import annotations

import bisect

import numpy as np

from ..config import ConfigError

__all__ = ["SampleOrder"]

# Keys of the generators beside the seed's own, which the augmentations draw from: the order is
# independent of their numbers. Seeds are below 2**32.
_ORDER_KEY, _ROUNDING_KEY = 2**32, 2 * 2**32
# Orders of epochs that are kept: a batch may span two, grouping by aspect ratio a few more.
_KEPT_EPOCHS = 4


class SampleOrder:
    """``order[position]`` is the index of a record: one epoch after the other, endlessly.

    An epoch holds record ``i`` ``floor(r_i)`` times, and once more with the probability
    ``r_i - floor(r_i)``, in a random order; so in the long run its share of the samples is
    ``r_i / sum(r)`` (Detectron2's ``RepeatFactorTrainingSampler``). Rounding and order are drawn
    anew for each epoch, from the seed and the epoch's number alone. Without factors, all are 1,
    and an epoch is a permutation of the records.

    Args:
        seed: non-negative integer below 2**32.
        size: number of records.
        repeat_factors: (size,) floats of at least 0.

    Raises:
        ConfigError: factors that are not `size` finite numbers of at least 0, or all are 0.
    """

    def __init__(self, seed: int, size: int, repeat_factors: np.ndarray | None = None) -> None:
        self.seed, self.size = seed, size
        self.repeat_factors = None
        if repeat_factors is not None:
            factors = np.asarray(repeat_factors, np.float64)
            usable = factors.shape == (size,) and np.isfinite(factors).all()
            if not usable or (factors < 0).any() or not factors.any():
                raise ConfigError(
                    f"repeat factors should be {size} finite numbers of at least 0, one for each "
                    "record and not all of them 0"
                )
            self.repeat_factors = factors
            sums = np.cumsum(factors)
            self._chances = sums / sums[-1]
        # Position at which each epoch begins; with factors their lengths differ.
        self._starts = [0]
        self._epochs: dict[int, np.ndarray] = {}

    def __getitem__(self, position: int) -> int:
        if self.repeat_factors is None:
            epoch, offset = divmod(position, self.size)
        else:
            while self._starts[-1] <= position:
                length = int(self._repeats(len(self._starts) - 1).sum())
                self._starts.append(self._starts[-1] + length)
            epoch = bisect.bisect_right(self._starts, position) - 1
            offset = position - self._starts[epoch]
        if epoch not in self._epochs:
            if len(self._epochs) >= _KEPT_EPOCHS:
                self._epochs.clear()
            self._epochs[epoch] = self._epoch(epoch)
        return int(self._epochs[epoch][offset])

    def draw(self, rng: np.random.Generator) -> int:
        """A random record in place of one that cannot be used; as frequent as in the epochs."""
        if self.repeat_factors is None:
            return int(rng.integers(self.size))
        return int(np.searchsorted(self._chances, rng.random(), side="right"))

    def _epoch(self, epoch: int) -> np.ndarray:
        rng = np.random.Generator(np.random.Philox(key=[self.seed + _ORDER_KEY, epoch]))
        if self.repeat_factors is None:
            return rng.permutation(self.size)
        return rng.permutation(np.repeat(np.arange(self.size), self._repeats(epoch)))

    def _repeats(self, epoch: int) -> np.ndarray:
        """(size,) how often an epoch holds each record."""
        assert self.repeat_factors is not None
        rng = np.random.Generator(np.random.Philox(key=[self.seed + _ROUNDING_KEY, epoch]))
        whole = np.floor(self.repeat_factors)
        return (whole + (rng.random(self.size) < self.repeat_factors - whole)).astype(np.int64)
