"""Records written to disk while they come, so that they never pile up in memory."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from detectron2.utils import comm

logger = logging.getLogger(__name__)


class RecordStream:
    """A JSON list of records, or one record a line, written by all processes.

    Each process appends to a part file of its own; :meth:`finish` joins the parts in rank order.
    With Detectron2's contiguous test sampler that is the order of the dataset.

    Args:
        path: the file to end up with: JSON lines where it ends in ``.jsonl``, else a JSON list.
        beside: further entries of the file; the list is then its ``annotations``.
        distributed: several processes write.
    """

    def __init__(
        self, path: Path, *, beside: Mapping[str, Any] | None = None, distributed: bool = True
    ) -> None:
        self.path = path
        self._beside = beside
        self._rank = comm.get_rank() if distributed else 0
        self._world_size = comm.get_world_size() if distributed else 1
        self._file: TextIO | None = None

    def reset(self) -> None:
        """Start over with an empty part."""
        self.close()
        self._part(self._rank).unlink(missing_ok=True)

    def write(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Append records that JSON can hold."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._part(self._rank).open("a", encoding="utf-8")
        for record in records:
            self._file.write(json.dumps(record))
            self._file.write("\n")

    def close(self) -> None:
        """Close the part file; further records are appended to it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def finish(self) -> None:
        """Join the parts; to be called by every process, after its last record."""
        self.write([])  # a process without images leaves an empty part, not a missing one
        self.close()
        if self._world_size > 1:
            comm.synchronize()
        if self._rank == 0:
            self._join()

    def _join(self) -> None:
        parts = [self._part(rank) for rank in range(self._world_size)]
        missing = [part.name for part in parts if not part.exists()]
        if missing:
            logger.warning(
                "%s: the parts %s are not visible here (another machine's disk?); the parts are "
                "left as they are.",
                self.path,
                ", ".join(missing),
            )
            return
        with self.path.open("w", encoding="utf-8") as joined:
            if self.path.suffix == ".jsonl":
                joined.writelines(_lines(parts))
            else:
                self._write_list(joined, _lines(parts))
        for part in parts:
            part.unlink()

    def _write_list(self, joined: TextIO, lines: Iterator[str]) -> None:
        if self._beside is not None:
            joined.write(f'{json.dumps(self._beside)[:-1]}, "annotations": ')
        separator = "[\n"
        for line in lines:
            joined.write(separator + line.rstrip("\n"))
            separator = ",\n"
        joined.write("[]" if separator == "[\n" else "\n]")
        joined.write("\n" if self._beside is None else "}\n")

    def _part(self, rank: int) -> Path:
        return self.path.with_name(f"{self.path.name}.part{rank}")


def _lines(parts: Iterable[Path]) -> Iterator[str]:
    for part in parts:
        with part.open(encoding="utf-8") as lines:
            yield from lines
