"""Files that are whole or not there, with their SHA-256 beside them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import secrets
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .errors import SegPluginsError

_CHUNK = 1 << 22
# The end of the names of files that are being written.
_TEMPORARY = ".tmp"


class WriteError(SegPluginsError, OSError):
    """A file could not be written; what stood under its name is untouched."""


class _Writer:
    """Passes bytes on to a file and hashes them.

    A failing write is kept for later: torch.save cannot carry an exception through its C++ code.
    """

    def __init__(self, file: io.RawIOBase, *, hashed: bool = True) -> None:
        self._file, self._hash = file, hashlib.sha256() if hashed else None
        self.size = 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        length = len(rest)
        self.size += length
        if self._hash is not None:
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
        return self._hash.hexdigest() if self._hash is not None else ""


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """For programs that write by name (videos, rasters): a temporary path in the same folder.

    What is written there takes the name at the end; after an error nothing stays behind.

    Raises:
        WriteError: it could not be written; names the path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path, path.suffix)
    try:
        yield temporary
        try:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
        except OSError as error:
            raise _explained(path, error, 0) from None
    finally:
        _discard(temporary)


def _temporary(path: Path, end: str = _TEMPORARY) -> Path:
    """Not by tempfile, whose files are readable by their owner alone: these follow the umask."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{end}")


def write_atomically(
    path: Path,
    write: Callable[[Any], object],
    *,
    with_digest: bool = False,
    durable: bool = True,
) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part.

    The bytes go to a temporary file in the same folder, to the disk, and then take the name; the
    folder is brought to the disk, too.

    Args:
        path: the file; its folder exists.
        write: writes the content to the file object it is given.
        with_digest: store the SHA-256 in ``NAME.sha256``, as ``sha256sum`` does.
        durable: wait until it is on the disk; False for a cache, which may be lost.

    Raises:
        WriteError: the disk is full, a limit is reached, ...; names the path and the size.
    """
    temporary = _temporary(path)
    writer: _Writer | None = None
    try:
        # Without a buffer: closing one would try to write what had failed once more.
        with open(temporary, "xb", buffering=0) as file:
            writer = _Writer(file, hashed=with_digest)
            write(writer)
            if writer.error is not None:
                raise writer.error
            if durable:
                os.fsync(file.fileno())
        if with_digest:
            # Until the new file has its name, the old one stands there: both are right.
            _write_digests(path, [writer.digest(), *_digests(path)])
        os.replace(temporary, path)
        if durable:
            _sync_folder(path.parent)
        if with_digest:
            _write_digests(path, [writer.digest()])
    except WriteError:  # of the digest's file
        _discard(temporary)
        raise
    except OSError as error:
        _discard(temporary)
        raise _explained(path, error, writer.size if writer else 0) from None
    except BaseException:
        _discard(temporary)
        raise


def _discard(temporary: Path) -> None:
    with contextlib.suppress(OSError):  # the reason why it could not be written is told instead
        temporary.unlink()


def _explained(path: Path, error: OSError, size: int) -> WriteError:
    message = f"{path} could not be written ({error.strerror or error})"
    with contextlib.suppress(OSError):  # its folder is gone
        free = shutil.disk_usage(path.parent).free
        message += f": {_megabytes(size)} are needed, {_megabytes(free)} are free on that disk"
    return WriteError(message + (". What stood there is untouched." if path.exists() else "."))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder; its rename is durable enough
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network disks cannot do so for a folder; the file itself is on the disk.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def remove_temporaries(folder: Path) -> None:
    """Delete the temporary files that a killed process left in a folder."""
    for file in folder.glob(f".*{_TEMPORARY}"):
        file.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------- digests


def digest_file(path: Path) -> Path:
    """Where the SHA-256 of a file is stored."""
    return path.with_name(f"{path.name}.sha256")


def write_digest(path: Path) -> Path:
    """Store the SHA-256 of a file that another program wrote; returns where."""
    _write_digests(path, [sha256(path)])
    return digest_file(path)


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
