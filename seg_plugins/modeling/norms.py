"""Group norm for any number of channels."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def norm_of(name: str) -> str | Callable[[int], nn.Module]:
    """What ``detectron2.layers.get_norm``, and layers that call it, take for a NORM key.

    Detectron2's ``GN`` has 32 groups always, so it cannot normalise the 48 channels of DeepLabv3+'s
    decoder: there this one has 16. Where 32 divides the channels it is the same.
    """
    return group_norm if name == "GN" else name


def group_norm(channels: int) -> nn.GroupNorm:
    """A group norm of ``channels`` channels; parameters ``weight`` and ``bias`` of that size."""
    return nn.GroupNorm(group_count(channels), channels)


def group_count(channels: int) -> int:
    """32 groups, or the largest power of two below that divides the channels."""
    return next(groups for groups in (32, 16, 8, 4, 2, 1) if channels % groups == 0)
