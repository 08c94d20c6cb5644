"""Load the compiled operators and say why they are absent where they are.

The extension is a library that registers its operators as ``torch.ops.seg_plugins.*`` when it is
loaded. It uses PyTorch's stable ABI only, and nothing of Python: one file serves every version from
those on that setup.py names. Nothing here compiles: ``setup.py`` does.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch

# Under Linux and macOS, under Windows.
FILES = tuple(Path(__file__).parents[1] / name for name in ("_C.abi3.so", "_C.pyd"))
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
        build: ``key=value`` words of the build: ``cuda=<yes|none> simd=<instruction set>``.
    """

    loaded: bool
    reason: str = ""
    build: str = ""

    @property
    def with_cuda(self) -> bool:
        """The CUDA kernels were compiled in."""
        return "cuda=yes" in self.build.split()


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
    try:
        torch.ops.load_library(file)
    except OSError as error:  # a symbol that this PyTorch does not have
        return ExtensionStatus(
            False,
            f"the extension {file.name} does not load with torch {torch.__version__}: {error}. "
            f"{BUILD_HINT}",
        )
    return ExtensionStatus(True, build=torch.ops.seg_plugins.build_info())


def require_extension(purpose: str) -> None:
    """Raise RuntimeError, with the reason and the fix, unless the extension is loaded.

    Args:
        purpose: What needs it, for the message: "backend 'cpu' of roi_align".
    """
    status = load_extension()
    if not status.loaded:
        raise RuntimeError(f"{purpose} needs the compiled operators, but {status.reason}")
