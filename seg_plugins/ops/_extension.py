"""Load the compiled operators and say why they are absent where they are.

The extension is a library that registers its operators as ``torch.ops.seg_plugins.*`` when it is
loaded; what they are on a GPU is a second one, for a PyTorch with CUDA. Both use PyTorch's stable
ABI only, and nothing of Python: one file serves every version from those on that setup.py names.
Nothing here compiles: ``setup.py`` does.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch

_FOLDER = Path(__file__).parents[1]
# Under Linux and macOS, under Windows.
FILES = (_FOLDER / "_C.abi3.so", _FOLDER / "_C.pyd")
CUDA_FILES = (_FOLDER / "_C_cuda.abi3.so", _FOLDER / "_C_cuda.pyd")
BUILD_HINT = (
    "Build it with `python setup.py build_ext --inplace` in a checkout, or reinstall with "
    "`pip install --no-build-isolation .` where a C++ compiler is available."
)


@dataclass(frozen=True)
class ExtensionStatus:
    """What became of loading the extension.

    Attributes:
        loaded: The operators are registered.
        reason: Why not, and what to do about it; empty when loaded.
    """

    loaded: bool
    reason: str = ""


@functools.cache
def load_extension() -> ExtensionStatus:
    """Load ``seg_plugins/_C`` once and report the outcome.

    Returns:
        The status; ``loaded`` is False when the extension was not built or needs a newer PyTorch,
        with the reason.
    """
    file = next((file for file in FILES if file.exists()), None)
    if file is None:
        return ExtensionStatus(False, f"the extension seg_plugins._C is not built. {BUILD_HINT}")
    return _load(file)


@functools.cache
def load_cuda_extension() -> ExtensionStatus:
    """The same for ``seg_plugins/_C_cuda``, which a PyTorch without CUDA does not load."""
    known = load_extension()
    if not known.loaded:
        return known
    file = next((file for file in CUDA_FILES if file.exists()), None)
    if file is None:
        return ExtensionStatus(
            False,
            "the extension was built without CUDA: no GPU was visible, or no nvcc was found. "
            "FORCE_CUDA=1 with CUDA_HOME set builds it.",
        )
    if torch.version.cuda is None:
        return ExtensionStatus(False, f"compiled, but torch {torch.__version__} is without CUDA")
    return _load(file)


def _load(file: Path) -> ExtensionStatus:
    try:
        torch.ops.load_library(file)
    except OSError as error:  # a symbol that this PyTorch does not have, or another CUDA's library
        return ExtensionStatus(
            False,
            f"the extension {file.name} does not load with torch {torch.__version__}: {error}. "
            f"{BUILD_HINT}",
        )
    return ExtensionStatus(True)


def require_extension(purpose: str) -> None:
    """Raise RuntimeError, with the reason and the fix, unless the extension is loaded.

    Args:
        purpose: What needs it, for the message: "backend 'cpu' of roi_align".
    """
    status = load_extension()
    if not status.loaded:
        raise RuntimeError(f"{purpose} needs the compiled operators, but {status.reason}")
