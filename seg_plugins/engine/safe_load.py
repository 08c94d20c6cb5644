"""Files with weights, read without executing anything that stands in them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

# A pickle is a program. This one may build arrays and plain containers and call nothing else.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): dict,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
}
# NumPy moved these between releases; a file names the place of the release that wrote it.
_NUMPY_MODULES = ("multiarray", "numeric")
_RECONSTRUCTORS = {
    "_reconstruct": np.empty(0).__reduce__()[0],
    "_frombuffer": np.empty(1).__reduce_ex__(5)[0],
    "scalar": np.float64(0).__reduce__()[0],
}


class UnsafeFileError(ValueError):
    """A file asks for more than arrays and plain containers; nothing of it was executed."""


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise UnsafeFileError(f"encoding {encoding!r} in a pickle")
    return text.encode("latin1")


class _ArraysOnly(pickle.Unpickler):
    """Finds the few names that arrays need; everything else is refused."""

    def find_class(self, module: str, name: str) -> Any:
        package, _, last = module.rpartition(".")
        if package in ("numpy.core", "numpy._core") and last in _NUMPY_MODULES:
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
            ".pkl files; convert it where you trust it, e.g. to .safetensors."
        ) from None
    except (
        pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, KeyError,
        TypeError, ValueError, OverflowError, MemoryError, RecursionError,
    ) as error:  # fmt: skip
        raise UnsafeFileError(f"{name} is no readable pickle ({error})") from None
    _refuse_object_arrays(content, name)
    return content


def _refuse_object_arrays(content: Any, name: str) -> None:
    if isinstance(content, np.ndarray) and content.dtype.hasobject:
        raise UnsafeFileError(f"{name} was refused: an array of Python objects")
    if isinstance(content, dict):
        for value in content.values():
            _refuse_object_arrays(value, name)
    elif isinstance(content, (list, tuple)):
        for value in content:
            _refuse_object_arrays(value, name)


def load_torch(path: str | Path) -> Any:
    """Read a ``.pth`` file: tensors and plain containers, onto the CPU.

    Raises:
        UnsafeFileError: the file holds something else, or is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise UnsafeFileError(
            f"{path} could not be read as tensors and plain containers: {reason}"
        ) from None
