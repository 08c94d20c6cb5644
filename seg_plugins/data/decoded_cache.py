"""A cache of decoded images on disk, for datasets whose decoding is the bottleneck."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..io.files import write_atomically

__all__ = ["DecodedCache"]


class DecodedCache:
    """Arrays by file name, as memory-mapped ``.npy`` files.

    An entry is used only while the source file keeps its size and time. Once the cache is full it
    takes no new entries: samples come in random order, so that evicting would only churn.

    Safe with several processes: entries are written aside and renamed. Each process adds up the
    folder once, at its first write, and then its own entries, so that P processes that start
    together may exceed the bound by what the others write.

    Args:
        folder: made if it is missing.
        max_bytes: bound of the entries' size.
    """

    def __init__(self, folder: str | Path, *, max_bytes: int) -> None:
        self.folder = Path(folder)
        self.max_bytes = max_bytes
        self._used: int | None = None

    def get(self, file_name: str, kind: str, decode: Callable[[], np.ndarray]) -> np.ndarray:
        """The decoded file, from the cache if it is there.

        Args:
            file_name: the source.
            kind: tells apart what may be decoded from one source, e.g. "BGR".
            decode: reads the source.

        Returns:
            The array; read-only where it comes from the cache.
        """
        try:
            stat = os.stat(file_name)
        except OSError:
            return decode()  # which explains what is missing
        key = f"{os.path.abspath(file_name)} {stat.st_size} {stat.st_mtime_ns} {kind}"
        digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
        path = self.folder / digest[:2] / f"{digest}.npy"
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, EOFError):
            logging.getLogger(__name__).warning("%s is damaged and is written anew", path)
        pixels = decode()
        self._put(path, pixels)
        return pixels

    def _put(self, path: Path, pixels: np.ndarray) -> None:
        try:
            if self._used is None:
                self._used = sum(p.stat().st_size for p in self.folder.glob("*/*.npy"))
            if self._used + pixels.nbytes > self.max_bytes:
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            array = np.ascontiguousarray(pixels)
            write_atomically(
                path, lambda file: np.save(file, array, allow_pickle=False), durable=False
            )
            self._used += pixels.nbytes
        except OSError as error:
            # A full disk makes training slow, not impossible.
            logging.getLogger(__name__).warning("%s: not cached (%s)", self.folder, error)
            self._used = self.max_bytes
