"""The one error an evaluator raises when it is handed something it cannot score."""

from __future__ import annotations

from ..io.errors import SegPluginsError


class EvaluationError(SegPluginsError, ValueError):
    """A prediction, an image or a ground-truth file cannot be scored; the message names it."""
