"""A dataset root for the miniatures of each test."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite("miniatures")


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return tmp_path
