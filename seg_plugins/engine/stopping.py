"""Breaking an evaluation off when the training is to stop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar


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
