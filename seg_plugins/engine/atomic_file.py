"""Files that are whole or not there, with their SHA-256 beside them."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

_CHUNK = 1 << 22


class WriteError(OSError):
    """A file could not be written; what stood under its name is untouched."""


class _Writer:
    """Passes bytes on to a file and hashes them.

    A failing write is kept for later: torch.save cannot carry an exception through its C++ code.
    """

    def __init__(self, file: io.RawIOBase) -> None:
        self._file, self._hash = file, hashlib.sha256()
        self.size = 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        length = len(rest)
        self.size += length
        self._hash.update(rest)
        while self.error is None and rest:
            try:
                rest = rest[self._file.write(rest) or 0 :]
            except OSError as error:
                self.error = error
        return length

    def flush(self) -> None:
        """Nothing is held back."""

    def digest(self) -> str:
        return self._hash.hexdigest()


def write_atomically(
    path: Path, write: Callable[[Any], object], *, with_digest: bool = False
) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    The bytes go to a temporary file in the same folder, to the disk, and then take the name; the
    folder is brought to the disk, too.

    Args:
        path: the file; its folder exists.
        write: writes the content to the file object it is given.
        with_digest: store the SHA-256 in ``NAME.sha256``, as ``sha256sum`` does.

    Raises:
        WriteError: the disk is full, a limit is reached, ...; names the path and the size.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        # Without a buffer: closing one would try to write what had failed once more.
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            writer = _Writer(file)
            write(writer)
            if writer.error is None:
                try:
                    os.fsync(file.fileno())
                except OSError as error:
                    writer.error = error
            if writer.error is not None:
                raise _explained(path, writer) from None
        os.chmod(temporary, 0o644)
        if with_digest:
            # Until the new file has its name, the old one stands there: both are right.
            _write_digests(path, [writer.digest(), *_digests(path)])
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)
    if with_digest:
        _write_digests(path, [writer.digest()])


def _explained(path: Path, writer: _Writer) -> WriteError:
    free = shutil.disk_usage(path.parent).free
    kept = " What stood there is untouched." if path.exists() else ""
    return WriteError(
        f"{path} could not be written ({writer.error}): {_megabytes(writer.size)} are needed, "
        f"{_megabytes(free)} are free on that disk.{kept}"
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder; its rename is durable enough
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporaries(folder: Path) -> None:
    """Delete the temporary files that a killed process left in a folder."""
    for file in folder.glob(".*.pth.*"):
        file.unlink(missing_ok=True)
    for file in folder.glob(".*.sha256.*"):
        file.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------- digests


def digest_file(path: Path) -> Path:
    """Where the SHA-256 of a file is stored."""
    return path.with_name(f"{path.name}.sha256")


def _write_digests(path: Path, digests: list[str]) -> None:
    text = "".join(f"{digest}  {path.name}\n" for digest in dict.fromkeys(digests))
    write_atomically(digest_file(path), lambda file: file.write(text.encode()))


def _digests(path: Path) -> list[str]:
    file = digest_file(path)
    if not file.is_file():
        return []
    lines = file.read_text("latin1").splitlines()
    return [line.split("  ")[0] for line in lines if line]


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    result = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            result.update(chunk)
    return result.hexdigest()


def damage(path: Path, *, ours: bool = False) -> str | None:
    """What is wrong with a file, or None where nothing can be found.

    Compared with the SHA-256 beside it, if there is one; else with the checksums that a ``.pth``
    file holds itself.

    Args:
        path: the file.
        ours: it was written by :func:`write_atomically` and must have one of the two.
    """
    if not path.is_file():
        return "it does not exist"
    if digest_file(path).is_file():
        found = sha256(path)
        if found not in _digests(path):
            return f"its SHA-256 is {found[:12]}..., not the one in {digest_file(path).name}"
        return None
    if not zipfile.is_zipfile(path):
        return "it is cut off" if ours else None
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        return f"it is damaged ({error})"
    return f"its part {broken} is damaged" if broken else None
