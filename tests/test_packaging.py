"""The installed package carries what a checkout has: configurations, tables, templates."""

from __future__ import annotations

import importlib.util
import os
import re
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
    for name in ("setup.py", "seg_plugins_cli.py", "pyproject.toml", "README.md", "LICENSE"):
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


def files_below(folder: Path) -> set[str]:
    """What is no product of running or building, by its path below the folder."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".so")
    }


@pytest.mark.slow
def test_every_file_of_the_package_is_in_the_wheel(installed):
    wanted = {name for name in files_below(ROOT / "seg_plugins") if "csrc/" not in name}
    wanted |= {f"configs/{name}" for name in files_below(ROOT / "configs")}
    assert wanted <= files_below(installed / "seg_plugins")
    assert (installed / "seg_plugins_cli.py").is_file()
    kinds = {Path(name).suffix for name in wanted}
    assert kinds >= {".py", ".yaml", ".json", ".html", ".css", ".js", ".typed"}


@pytest.fixture(scope="module")
def setup_file():
    """setup.py as a module, which does nothing when it is imported."""
    spec = importlib.util.spec_from_file_location("setup_of_the_package", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_requirement_stands_twice(setup_file):
    module = setup_file
    for listed in (module.INSTALL_REQUIRES, *module.EXTRAS_REQUIRE.values()):
        names = [re.match(r"[\w-]+", line).group().lower() for line in listed]
        assert len(set(names)) == len(names), names


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell script")
def test_a_toolkit_is_found_behind_an_nvcc_that_calls_another(setup_file, tmp_path):
    toolkit, elsewhere = tmp_path / "cuda-13.0", tmp_path / "bin" / "nvcc"
    for file in (toolkit / "include" / "cuda_runtime.h", toolkit / "bin" / "nvcc", elsewhere):
        file.parent.mkdir(parents=True)
        file.touch(mode=0o755)
    # What the real one prints of itself.
    elsewhere.write_text(f"#!/bin/sh\necho '#$ TOP={toolkit}/bin/..' >&2\n")
    assert setup_file.find_toolkit(str(elsewhere)) == str(toolkit.resolve())
    assert setup_file.find_toolkit(str(toolkit / "bin" / "nvcc")) is None  # PyTorch's own guess
    assert setup_file.find_toolkit(None) is None
    (toolkit / "include" / "cuda_runtime.h").unlink()
    assert setup_file.find_toolkit(str(elsewhere)) is None


@pytest.mark.slow
def test_the_command_starts_from_the_wheel(installed, tmp_path):
    (points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "seg-plugins = seg_plugins_cli:main" in points.read_text().splitlines()
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    for start in (["-m", "seg_plugins"], ["-c", "import seg_plugins_cli as c; c.main()"]):
        command = [sys.executable, *start, "analyze", "--config-file", "isbi2012/unet_valid.yaml"]
        result = subprocess.run(
            [*command, "--size", "64", "64"], cwd=tmp_path, env=environment, capture_output=True,
            text=True,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        assert "published: 31,030,658 parameters" in result.stdout


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
        "from seg_plugins.visualization.report import build_page, Run;"
        "assert b'</html>' in build_page([Run('a', '.')]);"
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
