"""One family of errors: what a command line has to catch is one class."""

from __future__ import annotations

import ast
from pathlib import Path

import seg_plugins
from seg_plugins import SegPluginsError
from seg_plugins.config import ConfigError
from seg_plugins.data import DatasetError
from seg_plugins.engine.failures import NonFiniteError, OutOfMemoryError
from seg_plugins.evaluation import EvaluationError
from seg_plugins.export import ExportError
from seg_plugins.io.files import WriteError
from seg_plugins.io.weights import WeightsError
from seg_plugins.prediction import ClassNameError, PredictionError
from seg_plugins.tasks import UnknownTaskError

import pytest

PACKAGE = Path(seg_plugins.__file__).parent
# A missing C++ module has to look like a missing attribute; the others end an evaluation or a loop.
NO_MESSAGES = {"MissingExtensionError", "EvaluationStopped", "_LoopLeft"}


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (ClassNameError, PredictionError),
        (ConfigError, ValueError),
        (DatasetError, ValueError),
        (EvaluationError, ValueError),
        (ExportError, RuntimeError),
        (NonFiniteError, FloatingPointError),
        (OutOfMemoryError, RuntimeError),
        (PredictionError, ValueError),
        (UnknownTaskError, ValueError),
        (WeightsError, RuntimeError),
        (WriteError, OSError),
    ],
)
def test_errors_are_of_the_family_and_stay_what_they_were(error, builtin):
    assert issubclass(error, SegPluginsError)
    assert issubclass(error, builtin)
    assert str(error("in a.png")) == "in a.png"


def test_no_error_stands_apart():
    roots = {}
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = [ast.unparse(base) for base in node.bases]
                if any(base.endswith(("Error", "Exception")) for base in bases):
                    roots[node.name] = bases
    known = {"SegPluginsError"}
    while more := {n for n, bases in roots.items() if known & set(bases)} - known:
        known |= more
    assert set(roots) - known == NO_MESSAGES
    assert len(known) > 12
