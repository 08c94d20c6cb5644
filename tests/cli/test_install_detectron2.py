"""The installer runs nothing of an archive whose hash is wrong, and says what to do offline."""

from __future__ import annotations

from seg_plugins.cli import install_detectron2 as installer
from seg_plugins.cli.main import main

import pytest


def test_a_changed_archive_is_refused_before_anything_runs(tmp_path):
    archive = tmp_path / "pb1-detectron2-0.6.tar.gz"
    archive.write_bytes(b"not the release")
    with pytest.raises(installer.InstallError, match=r"SHA-256 [0-9a-f]{64}, expected 5d2e9e51"):
        installer.build_wheel(archive, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [archive.name]


def test_an_unreachable_index_is_explained(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(installer.InstallError, match="DETECTRON2=git"):
        installer.download(tmp_path)


def test_an_installed_detectron2_is_left_as_it_is(monkeypatch, capsys):
    monkeypatch.setattr(installer, "pip", lambda *a: pytest.fail("pip was called"))
    main("install-detectron2", [])
    assert "left as it is" in capsys.readouterr().out
