"""Files with weights, read without executing anything that stands in them."""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import pickle
import shlex
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from ..errors import SegPluginsError

# A pickle is a program. This one may build arrays and plain containers and call nothing else.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): dict,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
}
# NumPy moved these between releases; a file names the place of the release that wrote it.
_NUMPY_PACKAGES = ("numpy.core", "numpy._core")
_NUMPY_MODULES = ("multiarray", "numeric")
_RECONSTRUCTORS = {
    "_reconstruct": np.empty(0).__reduce__()[0],
    "_frombuffer": np.empty(1).__reduce_ex__(5)[0],
    "scalar": np.float64(0).__reduce__()[0],
}
# What to run where a file is trusted: it keeps arrays, numbers and text by name, nothing else.
_REWRITE = (
    "import numpy, pickle, torch; keep = lambda c: c.state_dict() if hasattr(c, 'state_dict') else "
    "{k: keep(v) for k, v in c.items()} if isinstance(c, dict) else TENSOR if torch.is_tensor(c) "
    "else c if isinstance(c, (str, int, float)) or isinstance(c, numpy.ndarray) and c.dtype.kind "
    "in 'biuf' else None; "
)
_REWRITE_TORCH = _REWRITE.replace("TENSOR", "c") + (
    "torch.save(keep(torch.load('FILE', 'cpu', weights_only=False)), 'FILE.weights.pth')"
)
_REWRITE_PICKLE = _REWRITE.replace("TENSOR", "c.detach().cpu().numpy()") + (
    "pickle.dump(keep(pickle.load(open('FILE', 'rb'), encoding='latin1')), "
    "open('FILE.weights.pkl', 'wb'))"
)


class UnsafeFileError(SegPluginsError, ValueError):
    """A file asks for more than arrays and plain containers; nothing of it was executed."""


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise UnsafeFileError(f"encoding {encoding!r} in a pickle")
    return text.encode("latin1")


class _ArraysOnly(pickle.Unpickler):
    """Finds the few names that arrays need; everything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        package, _, last = module.rpartition(".")
        if package in _NUMPY_PACKAGES and last in _NUMPY_MODULES:
            if name in _RECONSTRUCTORS:
                return _RECONSTRUCTORS[name]
        elif (module, name) == ("_codecs", "encode"):  # bytes, in protocol 2
            return _encode
        elif (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        raise UnsafeFileError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise UnsafeFileError("it refers to objects outside the file")


def load_pickle(path: str | Path) -> Any:
    """Read a ``.pkl`` of arrays (Detectron's and Detectron2's model zoos).

    Args:
        path: the file; text in it is taken as latin1, as Python 2 wrote it.

    Returns:
        Dicts, lists, numbers, text and NumPy arrays without objects.

    Raises:
        UnsafeFileError: the file would import or call something else, or is damaged.
    """
    with open(path, "rb") as file:
        return _unpickle(file, str(path))


def _unpickle(file: IO[bytes], name: str) -> Any:
    try:
        content = _ArraysOnly(file, encoding="latin1").load()
    except UnsafeFileError as error:
        raise UnsafeFileError(
            f"{name} was refused: {error}. Only arrays and plain containers are read from "
            f".pkl files. {_rewrite(_REWRITE_PICKLE, name)}"
        ) from None
    except (
        pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError,
        TypeError, ValueError, OverflowError, MemoryError, RecursionError,
    ) as error:  # fmt: skip
        raise UnsafeFileError(f"{name} is no readable pickle ({error})") from None
    _refuse_object_arrays(content, name)
    return content


def _refuse_object_arrays(content: Any, name: str) -> None:
    """Look at every array once: a pickle's containers may hold themselves."""
    seen: set[int] = set()
    waiting = [content]
    while waiting:
        item = waiting.pop()
        if isinstance(item, np.ndarray) and item.dtype.hasobject:
            raise UnsafeFileError(f"{name} was refused: an array of Python objects")
        if isinstance(item, (dict, list, tuple)) and id(item) not in seen:
            seen.add(id(item))
            waiting += item.values() if isinstance(item, dict) else item


def load_torch(path: str | Path) -> Any:
    """Read what ``torch.save`` wrote: tensors and plain containers, onto the CPU.

    NumPy's numbers and arrays, paths and ``argparse.Namespace`` are plain containers, too: what
    other libraries keep beside their weights.

    Raises:
        UnsafeFileError: the file holds something else, or is damaged; the message has the command
            that helps where the file is trusted.
    """
    _refuse_other_formats(Path(path))
    try:
        with torch.serialization.safe_globals(list(_harmless())):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError, EOFError, RuntimeError, ValueError, KeyError, TypeError,
        AttributeError, IndexError, AssertionError, MemoryError, OverflowError, ImportError,
    ) as error:  # fmt: skip
        raise UnsafeFileError(_refusal(Path(path), error)) from None
    _refuse_object_arrays(content, str(path))
    return content


def _harmless() -> Iterator[Any]:
    """Classes and functions that build values and do nothing else, as torch names them."""
    for package in _NUMPY_PACKAGES:
        for module in _NUMPY_MODULES:
            for name, function in _RECONSTRUCTORS.items():
                yield function, f"{package}.{module}.{name}"
    yield from (np.dtype, np.ndarray, argparse.Namespace)
    for name in ("PurePath", "PurePosixPath", "PureWindowsPath", "PosixPath", "WindowsPath"):
        for module in ("pathlib", "pathlib._local"):  # Python 3.13 moved them for a while
            # A path of the other system cannot be made here.
            yield getattr(pathlib, name.replace("Windows", "Posix")), f"{module}.{name}"
    yield from {type(np.dtype(code)) for code in np.typecodes["All"] if code != "O"}


def _refuse_other_formats(path: Path) -> None:
    start = _start(path)
    if start.startswith(b"version https://git-lfs"):
        raise UnsafeFileError(
            f"{path} is a pointer of Git LFS, not the file itself: git lfs pull fetches it"
        )
    if start.lstrip()[:1] == b"<":
        raise UnsafeFileError(f"{path} is a web page, not weights: fetch the file itself")
    if _is_torchscript(path):
        raise UnsafeFileError(
            f"{path} is TorchScript, a program and not weights: name the checkpoint it was "
            "exported from, e.g. model_final.pth"
        )


def _refusal(path: Path, error: Exception) -> str:
    # The first sentence; torch goes on with advice about its own settings.
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = next((line for line in lines if "WeightsUnpickler" in line), "".join(lines[:1]))
    reason = reason.partition(" was not an allowed global")[0].partition(". ")[0].partition(" (")[0]
    reason = reason.replace("WeightsUnpickler error: ", "")[:200] or type(error).__name__
    known = _start(path).startswith((b"PK", b"\x80"))  # a zip archive, or the pickle of old files
    if not known:
        reason = "it is empty, or does not begin as a file of torch.save does"
    message = f"{path} could not be read as tensors and plain containers: {reason}. "
    if known and isinstance(error, pickle.UnpicklingError):
        return message + _rewrite(_REWRITE_TORCH, str(path))
    return message + "Damaged, or another file: copy it again, or name a .pth, .pkl or .safetensors"


def _rewrite(code: str, path: str) -> str:
    """The command that executes a file, for whoever trusts it, and keeps what is read here."""
    quoted = path.replace("\\", "\\\\").replace("'", "\\'")
    return (
        "Nothing of it was executed. Only where you trust the file, write what can be read: "
        f"python -c {shlex.quote(code.replace('FILE', quoted))}"
    )


def _start(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(64)


def _is_torchscript(path: Path) -> bool:
    with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())
    return False
