"""Memory of a process that computes on the CPU: what a step frees is kept for the next."""

from __future__ import annotations

import ctypes
import os
import platform

# mallopt(3)
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Have the C library keep freed memory of this process instead of giving it back.

    glibc takes large blocks from the system one by one and gives them back when they are freed. A
    training step or a prediction needs the same activations as the one before, and the system
    clears every page of them anew. After this call the process holds its peak until it ends.

    Returns:
        Whether it does: only glibc can, and settings of the user's own (``MALLOC_*`` or
        ``GLIBC_TUNABLES`` in the environment) stay.
    """
    own = any(name.startswith("MALLOC_") for name in os.environ)
    if own or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_TRIM_THRESHOLD, -1) and mallopt(_MMAP_MAX, 0))
