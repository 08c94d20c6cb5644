"""Load the compiled operators and say why they are absent where they are.

The extension ``seg_plugins._C`` registers its operators as ``torch.ops.seg_plugins.*`` when it is
loaded. Nothing here compiles: ``setup.py`` does.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
from dataclasses import dataclass

import torch  # before the extension, which needs its libraries in the process

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
        build: ``key=value`` words of the build: ``openmp=<version|none> cuda=<yes|none>``.
    """

    loaded: bool
    reason: str = ""
    build: str = ""

    @property
    def with_cuda(self) -> bool:
        """The CUDA kernels were compiled in."""
        return "cuda=yes" in self.build.split()

    @property
    def with_openmp(self) -> bool:
        """The CPU operators run several threads."""
        return self.loaded and "openmp=none" not in self.build.split()


@functools.cache
def load_extension() -> ExtensionStatus:
    """Load ``seg_plugins._C`` once and report the outcome.

    Returns:
        The status; ``loaded`` is False when the extension was not built for this interpreter or
        was built against another PyTorch, with the reason.
    """
    if importlib.util.find_spec("seg_plugins._C") is None:
        return ExtensionStatus(False, f"the extension seg_plugins._C is not built. {BUILD_HINT}")
    try:
        importlib.import_module("seg_plugins._C")
    except ImportError as error:
        # An undefined symbol: compiled against a PyTorch of another version.
        return ExtensionStatus(
            False,
            f"the extension seg_plugins._C does not load with torch {torch.__version__}: {error}. "
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
