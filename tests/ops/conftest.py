"""Fixtures of the operators' tests."""

from __future__ import annotations

from seg_plugins.ops._extension import load_extension

import pytest


@pytest.fixture(params=["compiled", "fallback"])
def form(request, monkeypatch):
    """Runs each test on the compiled operators of the evaluators and on the fallback."""
    if request.param == "fallback":
        for module in ("segmentation_metrics", "run_length", "instance_matching", "homotopic_warp"):
            monkeypatch.setattr(f"seg_plugins.ops.{module}.compiled", lambda: False)
    elif not load_extension().loaded:
        pytest.skip(load_extension().reason)
    return request.param
