"""What readers do with the errors of single records."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..io.errors import DatasetError

__all__ = [
    "CollectedErrors",
    "DatasetError",
    "Report",
    "allowed",
    "raise_error",
    "share_to_allow",
]

logger = logging.getLogger(__name__)

_SHOWN = 5


# What readers do with an error in one record: raise it, or note it and go on without the record.
Report = Callable[[DatasetError], None]


def raise_error(error: DatasetError) -> None:
    """The report that stops at the first error."""
    raise error


class CollectedErrors:
    """A report that notes the errors of single records, to be held against a bound afterwards.

    Attributes:
        errors: in the order of the records.
    """

    def __init__(self) -> None:
        self.errors: list[DatasetError] = []

    def __call__(self, error: DatasetError) -> None:
        """Note the error of a record that is left out."""
        self.errors.append(error)

    def check(self, share: float, name: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Log what is left out, or refuse it.

        Args:
            share: of the annotations that may be left out, ``DATALOADER.MAX_DAMAGED``; at least
                one may if it is not 0.
            name: of the dataset.
            records: what was read without an error. Those without annotations count as one.

        Raises:
            DatasetError: more are wrong. The message names the first and the share to set.
        """
        count = len(self.errors)
        if not count:
            return
        total = count + sum(len(record.get("annotations", (0,))) for record in records)
        shown = "".join(f"\n  {error}" for error in self.errors[:_SHOWN])
        if count > _SHOWN:
            shown += f"\n  ... and {count - _SHOWN} more"
        if count > allowed(share, total):
            raise DatasetError(
                f"{name}: {count} of {total} annotations are wrong:{shown}\nCorrect them, or set "
                f"DATALOADER.MAX_DAMAGED {share_to_allow(count, total)} to leave them out."
            )
        logger.warning(
            "%s: %d of %d annotations are wrong and left out:%s", name, count, total, shown
        )


def allowed(share: float, total: int) -> int:
    """How many of `total` a share of ``DATALOADER.MAX_DAMAGED`` allows: one or more if not 0."""
    return max(int(share * total), 1) if share else 0


def share_to_allow(count: int, total: int) -> str:
    """The smallest share of two digits with which `count` of `total` are allowed."""
    step = 10.0 ** (math.floor(math.log10(count / total)) - 1)
    share = math.ceil(count / total / step) * step
    while allowed(float(f"{share:.2g}"), total) < count:
        share += step
    return f"{share:.2g}"
