"""The one error of predictions."""

from __future__ import annotations

from ..io.errors import SegPluginsError


class PredictionError(SegPluginsError, ValueError):
    """A picture, an option or a model does not fit what was asked for; the message says how."""
