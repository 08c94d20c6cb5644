"""What a training says on the screen: a bar and what matters; ``log.txt`` has all of it."""

from __future__ import annotations

import contextlib
import logging
import re
import sys

from detectron2.engine import HookBase
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

LOGGERS = ("detectron2", "fvcore", "seg_plugins")
# Beginnings of what Detectron2 logs of the machine, the configuration and its lists: in the file.
_DETAILS = (
    "Rank of current process", "Environment info", "Command line arguments", "Contents of",
    "Running with full config", "Serializing", "Serialized dataset",
)  # fmt: skip
_METRICS = "detectron2.utils.events"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class _Plain(logging.Filter):
    """Takes colours out of a message: they are for a terminal's eyes."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if "\x1b" in text:
            record.msg, record.args = _COLOUR.sub("", text), ()
        return True


class _Short(logging.Filter):
    """Holds back details, and the lines of metrics where a bar shows them."""

    def __init__(self, bar: bool) -> None:
        super().__init__()
        self.bar = bar

    def filter(self, record: logging.LogRecord) -> bool:
        if self.bar and record.name == _METRICS:
            return False
        return record.levelno > logging.INFO or not record.getMessage().startswith(_DETAILS)


def quiet(*, bar: bool = False) -> None:
    """Let the screen show what matters, and nothing have colours but a terminal.

    Args:
        bar: metrics are shown by a bar.
    """
    for name in LOGGERS:
        for handler in logging.getLogger(name).handlers:
            screen = getattr(handler, "stream", None) in (sys.stdout, sys.stderr)
            handler.filters = [f for f in handler.filters if not isinstance(f, (_Plain, _Short))]
            if screen:
                handler.addFilter(_Short(bar))
            if not (screen and sys.stdout.isatty()):
                handler.addFilter(_Plain())


class ProgressBar(HookBase):
    """A bar over the iterations, with the loss, on a terminal; in a pipe nothing.

    Lines of the log stand above it.
    """

    def before_train(self) -> None:
        """Begin at the iteration that a resumed training begins at."""
        self._ends = contextlib.ExitStack()
        self._bar: tqdm | None = None
        if not sys.stdout.isatty():
            return
        loggers = [logging.getLogger(name) for name in LOGGERS]
        self._ends.callback(quiet)
        self._ends.enter_context(logging_redirect_tqdm(loggers))
        quiet(bar=True)
        self._bar = self._ends.enter_context(
            tqdm(
                total=self.trainer.max_iter,
                initial=self.trainer.start_iter,
                file=sys.stdout,
                unit="it",
                dynamic_ncols=True,
            )
        )

    def after_step(self) -> None:
        """One iteration more."""
        if self._bar is None:
            return
        latest = self.trainer.storage.latest()
        if "total_loss" in latest:
            self._bar.set_postfix(loss=f"{latest['total_loss'][0]:.3g}", refresh=False)
        self._bar.update()

    def after_train(self) -> None:
        """Give the screen back."""
        self._ends.close()
