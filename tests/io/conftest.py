"""Fixtures of the tests of files."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture(autouse=True)
def _checkpointers_log_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectron2's set-up of logging, in a test before, keeps fvcore's lines to itself."""
    for name in ("fvcore", "fvcore.common", "fvcore.common.checkpoint"):
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "propagate", True)
        monkeypatch.setattr(logger, "disabled", False)
