"""Stopping on a signal: the system takes the machine away, and the training keeps its place."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import FrameType
from typing import Any

from detectron2.engine import HookBase

from .worker_signals import SIGNALS

logger = logging.getLogger(__name__)


class EvaluationStopped(Exception):
    """An evaluation was broken off because the training is to stop."""


_check: ContextVar[Callable[[], None]] = ContextVar("_check", default=lambda: None)


@contextlib.contextmanager
def interruptible(check: Callable[[], None]) -> Iterator[None]:
    """Let evaluations within call ``check`` before each batch; what it raises ends them.

    A context and no argument: a ``test`` that a subclass overrides need not pass it on.
    """
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def check_stop() -> None:
    """Call what :func:`interruptible` was given, if anything."""
    _check.get()()


class StopOnSignal(HookBase):
    """After SIGTERM, SIGUSR1 or SIGUSR2 the iteration is completed, saved, and training ends.

    One process that gets the signal is enough: all of them agree in the iteration's own exchange
    of losses. This hook goes before the one that saves checkpoints.
    """

    def __init__(self) -> None:
        self._previous: dict[int, Any] = {}

    def before_train(self) -> None:
        """Install the handlers; in a thread that is not possible, and none are."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}

    def _note(self, number: int, _: FrameType | None) -> None:
        logger.warning("%s was received", signal.Signals(number).name)
        self.trainer.want_stop()

    def after_step(self) -> None:
        """Let the trainer stop once all processes know."""
        self.trainer.agree_to_stop()

    def after_train(self) -> None:
        """Put the former handlers back."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
