"""The one exception that bad data raises."""

from __future__ import annotations

__all__ = ["DatasetError"]


class DatasetError(ValueError):
    """A dataset file is missing, damaged or contradicts its annotation.

    The message names the file, the record and the field where one is known, and the fix where
    there is one. Nothing that stands in an annotation file may raise anything else.
    """
