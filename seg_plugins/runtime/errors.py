"""The one error of exported files that are run."""

from __future__ import annotations

from ..io.errors import SegPluginsError


class ModelFileError(SegPluginsError, RuntimeError):
    """An exported file cannot be opened or run here; the message names it and says what to do."""
