"""The one exception that bad data raises."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["DatasetError", "Report", "raise_error"]


class DatasetError(ValueError):
    """A dataset file is missing, damaged or contradicts its annotation.

    The message names the file, the record and the field where one is known, and the fix where
    there is one. Nothing that stands in an annotation file may raise anything else.
    """


# What readers do with an error in one record: raise it, or note it and go on without the record.
Report = Callable[[DatasetError], None]


def raise_error(error: DatasetError) -> None:
    """The report that stops at the first error."""
    raise error
