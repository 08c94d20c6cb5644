"""This process and the system: signals, device, memory.

Signals are the training process's: its data workers leave them to it, its launcher passes on.
``timeout``, ``scancel``, service managers and Ctrl-C signal a whole process group: a worker that
ended then would take the training with it before its checkpoint is written.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import logging
import multiprocessing
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import torch

logger = logging.getLogger(__name__)

# SLURM sends SIGTERM before it takes a node, and another signal earlier where asked for one.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)
# What only the training process is to act on. Not everywhere can a process ask who sent a signal.
_LEFT = {signal.SIGINT, *SIGNALS} if hasattr(signal, "sigwaitinfo") else set()
# mallopt(3)
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Hold signals back while workers are started: they begin with them blocked."""
    if not _LEFT:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def init_worker(_: int) -> None:
    """Set up a data worker: one thread for computing, and signals are its parent's to send.

    Ignoring SIGTERM altogether would not do: by it, PyTorch and Python end workers that do not
    end by themselves, and then wait for them. Of a parent that dies PyTorch's workers take note
    themselves. Forked workers have one thread at this point; in those of a fork server a library
    may have started others, which still take what is sent to them.
    """
    # Workers share the cores with training: more threads in each only get in the way.
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()  # os.getppid() may be that of a fork server
    if _LEFT and parent is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT)
        threading.Thread(target=_end_when_asked, args=(parent.pid,), daemon=True).start()


def _end_when_asked(parent: int | None) -> None:
    while True:
        received = signal.sigwaitinfo(_LEFT)
        if received.si_signo == signal.SIGTERM and received.si_pid == parent:
            os._exit(0)


@contextlib.contextmanager
def handled(act: Callable[[int], None]) -> Iterator[None]:
    """Call ``act`` with the number of each signal; in a thread that is not possible."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda n, _: act(n)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def passed_on() -> contextlib.AbstractContextManager[None]:
    """Send this process's signals to the processes it has spawned, and go on waiting for them.

    If it ended instead, PyTorch would interrupt them before their checkpoint is written.
    """

    def pass_on(number: int) -> None:
        children = [child.pid for child in multiprocessing.active_children() if child.pid]
        if not children:
            sys.exit(128 + number)  # none yet, or no longer: as without a handler
        for child in children:
            os.kill(child, number)

    return handled(pass_on)


# ------------------------------------------------------------ device and memory


def use_available_device(cfg: Any, args: argparse.Namespace) -> None:
    """Set ``MODEL.DEVICE`` to the CPU where there is no GPU or none is asked for."""
    usable = args.num_gpus != 0 and torch.cuda.is_available()
    if cfg.MODEL.DEVICE.startswith("cuda") and not usable:
        cfg.MODEL.DEVICE = "cpu"
        reason = "as asked" if torch.cuda.is_available() else "no CUDA GPU is available"
        logger.warning("Running on the CPU (%s).", reason)


def be_deterministic() -> None:
    """Let operators give the same bits in every run, where they can; others warn by name."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


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
