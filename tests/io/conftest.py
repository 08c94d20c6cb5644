"""Fixtures of the tests of files."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def _checkpointers_log_is_seen(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Tests before may have set up Detectron2's logging, or have quietened fvcore's."""
    for name in ("fvcore", "fvcore.common", "fvcore.common.checkpoint"):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "propagate", True)
        monkeypatch.setattr(logger, "disabled", False)
    caplog.set_level(logging.INFO, logger="fvcore.common.checkpoint")
