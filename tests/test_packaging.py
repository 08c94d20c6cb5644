"""The installed package carries what a checkout has: configurations and class tables."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the content of the wheel, built without the extension."""
    source = tmp_path_factory.mktemp("source")
    for name in ("seg_plugins", "configs"):
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.so")
        )
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    result = subprocess.run(
        [sys.executable, "setup.py", "-q", "bdist_wheel", "--dist-dir", "dist"],
        cwd=source,
        env={**os.environ, "SEG_PLUGINS_NO_EXTENSION": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "torchvision" in result.stderr, "what falls back is not said"
    target = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(next((source / "dist").glob("*.whl"))) as wheel:
        wheel.extractall(target)
    return target


@pytest.mark.slow
def test_configurations_and_class_tables_are_in_the_wheel(installed):
    for pattern, where in (("*.yaml", "configs"), ("*.json", "data/datasets/class_tables")):
        there = {p.name for p in (installed / "seg_plugins" / where).rglob(pattern)}
        root = ROOT / "configs" if where == "configs" else ROOT / "seg_plugins" / where
        assert {p.name for p in root.rglob(pattern)} == there != set()


@pytest.mark.slow
def test_the_installed_package_loads_a_configuration_by_name(installed, tmp_path):
    code = (
        # An editable install of a checkout would lend its extension to this copy.
        "import sys; sys.meta_path[:] = ["
        "f for f in sys.meta_path if not f.__module__.startswith('__editable__')];"
        "import seg_plugins; print(seg_plugins.__file__);"
        "cfg = seg_plugins.load_config('camvid/deeplabv3plus_r18.yaml');"
        "from detectron2.data import MetadataCatalog as M;"
        "print(cfg.MODEL.META_ARCHITECTURE, M.get('camvid_val').stuff_classes[0]);"
        "from seg_plugins.ops import backend_report; print(backend_report())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    file, classes, *report = result.stdout.splitlines()
    assert file.startswith(str(installed))
    assert classes == "DeepLabV3Plus Sky"
    assert "not built" in report[0]
    assert report[-1] == "cpu tensors: torchvision"
