"""The installer runs nothing of an archive whose hash is wrong, and says what to do offline."""

from __future__ import annotations

import importlib.metadata
import os
from types import SimpleNamespace

from seg_plugins.cli import install_detectron2 as installer
from seg_plugins.cli.main import main

import pytest


def test_a_changed_archive_is_refused_before_anything_runs(tmp_path):
    archive = tmp_path / "pb1-detectron2-0.6.tar.gz"
    archive.write_bytes(b"not the release")
    with pytest.raises(installer.InstallError, match=r"SHA-256 [0-9a-f]{64}, expected 5d2e9e51"):
        installer.build_wheel(archive, tmp_path, {})
    assert [p.name for p in tmp_path.iterdir()] == [archive.name]


def test_an_unreachable_index_is_explained(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(installer.InstallError, match="DETECTRON2=git"):
        installer.download(tmp_path, dict(os.environ))


def test_an_installed_detectron2_is_left_as_it_is(monkeypatch, capsys):
    monkeypatch.setattr(installer, "pip", lambda *a: pytest.fail("pip was called"))
    main("install-detectron2", [])
    assert "left as it is" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("installed", "wanted"),
    [
        ({"pip": "26.2.1", "setuptools": "65.5", "wheel": "0.40"}, []),
        ({"pip": "25.0", "setuptools": "70.1.0"}, []),  # which builds wheels itself
        ({"pip": "25.0", "setuptools": "70.0"}, ["wheel"]),
        ({"pip": "23.2.1"}, ["setuptools", "wheel"]),
        ({"pip": "26.3", "setuptools": "84.2.1"}, ["pip<26.3"]),
        ({"pip": "27.0b1"}, ["pip<26.3", "setuptools", "wheel"]),
    ],
)
def test_what_the_build_lacks_is_put_into_its_own_folder(installed, wanted, monkeypatch, tmp_path):
    def version(name: str) -> str:
        if name not in installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed[name]

    calls = []
    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(installer, "pip", lambda *words: calls.append(list(words)))
    monkeypatch.setenv("PYTHONPATH", "mine")
    env = installer.build_environment(tmp_path)
    assert calls == ([["install", "-q", "--target", str(tmp_path), *wanted]] if wanted else [])
    assert env["PYTHONPATH"] == (f"{tmp_path}{os.pathsep}mine" if wanted else "mine")


def test_an_environment_without_pip_is_told_how_to_get_it(monkeypatch):
    specs = SimpleNamespace(find_spec=lambda name: None if name == "pip" else name)
    monkeypatch.setattr(installer.importlib, "util", specs)
    with pytest.raises(installer.InstallError, match=r"pip must be .*python.* -m ensurepip$"):
        installer.install_release(None)
