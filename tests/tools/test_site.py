"""The site: links that leave docs/, notebooks as pages, and the reference of configuration keys."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import seg_plugins

import pytest
from detectron2.config import get_cfg
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def modules(monkeypatch):
    """The two files of tools/site, as mkdocs finds them."""
    monkeypatch.syspath_prepend(ROOT / "tools/site")
    yield importlib.import_module("hooks"), importlib.import_module("config_reference")
    for name in ("hooks", "config_reference"):
        del sys.modules[name]


@pytest.fixture
def site(modules):
    """What turns a link of a page into one of the site, and the site's files."""
    config = MkDocsConfig()
    config.load_dict({"site_name": "x", "docs_dir": str(ROOT / "docs")})
    config.validate()
    config.plugins._current_plugin = "site"
    files = Files([File.generated(config, "data.md", content="")])
    return lambda target, page: modules[0].site_link(target, page, config, files), files


def test_links_lead_to_pages_of_the_site_and_to_copies(site):
    link, files = site
    assert link("data.md#rasters", "predict.md") == "data.md#rasters"
    assert link("docs/data.md", "index.md") == "data.md"  # index.md is README.md
    assert link("../README.md", "data.md") == "index.md"
    assert link("../docs/data.md#a", "datasets.md") == "data.md#a"  # datasets/README.md
    assert link("../seg_plugins/config", "data.md") == "reference/configuration.md"
    assert link("notebooks/find_nuclei.ipynb", "predict.md") == "notebooks/find_nuclei.md"
    assert link("images/a.png", "data.md") == "images/a.png"
    for unchanged in ("https://x.org", "#here", "mailto:a@b.c"):
        assert link(unchanged, "data.md") == unchanged
    assert link("LICENSE", "index.md") == "files/LICENSE"
    assert files.get_file_from_path("files/LICENSE").content_string.startswith("  ")


def test_a_link_to_nothing_is_a_warning_which_fails_the_build(site, caplog):
    link, _ = site
    assert link("../gone.py", "data.md") == "../gone.py"
    assert "docs/data.md links to ../gone.py" in caplog.text


def test_code_is_left_as_it_stands(modules, site):
    class Page:
        file = File("index.md", "a", "b", use_directory_urls=False)

    text = "[a](docs/data.md)\n\n```\n[a](docs/data.md)\n```\n[b](docs/data.md)"
    config = MkDocsConfig()
    found = modules[0].on_page_markdown(text, page=Page, config=config, files=site[1])
    assert found == "[a](data.md)\n\n```\n[a](docs/data.md)\n```\n[b](data.md)"


def test_a_notebook_becomes_text_and_code(modules, tmp_path):
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Text."]},
        {"cell_type": "code", "source": ["a = 1\n", "a"], "outputs": []},
    ]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}))
    page = modules[0].notebook_page(tmp_path / "n.ipynb")
    text, _, last = page.rpartition("\n\n")
    assert text == "# Title\nText.\n\n```python\na = 1\na\n```"
    assert "href='n.ipynb'" in last


def test_every_key_has_a_meaning(modules):
    reference = modules[1]
    keys = {key.name: key for key in reference.added_keys()}
    own = {name for name, _ in reference.leaves(seg_plugins.get_cfg())}
    assert keys.keys() == own - {name for name, _ in reference.leaves(get_cfg())}
    assert not [key.place for key in keys.values() if not key.meaning]
    assert keys["MODEL.VGG.DEPTH"].default == 16
    assert keys["MODEL.VGG.DEPTH"].meaning == "11, 13, 16 or 19."
    # A comment of two lines, and of a call with one key.
    assert keys["SOLVER.ACCUMULATE"].meaning.startswith("Parts in which each process takes its")
    assert keys["SOLVER.ACCUMULATE"].meaning.endswith("(batch statistics are those of a part).")
    # Two nodes from one loop.
    assert keys["MODEL.SOLO.INSTANCE_CHANNELS"].default == 256
    assert keys["MODEL.SOLOV2.INSTANCE_CHANNELS"].default == 512
    assert keys["MODEL.CONDINST.POS_RADIUS"].meaning == keys["MODEL.POLARMASK.POS_RADIUS"].meaning


def test_a_key_without_a_comment_of_its_own_is_seen(modules, tmp_path):
    (tmp_path / "planted_keys.py").write_text(
        "def set_defaults(node, **keys): ...\n"
        "def add(cfg):\n"
        "    # Of both?\n"
        "    set_defaults(cfg, ONE=1, TWO=2)\n"
        "    set_defaults(cfg,\n"
        "        # Of three.\n"
        "        THREE=3,\n"
        "        FOUR=4)\n"
        "    # --- shared with them\n"
        "    # Of five.\n"
        "    set_defaults(cfg, FIVE=5)\n"
    )
    reference = modules[1]
    file = tmp_path / "planted_keys.py"

    def meaning(line: int, key: str) -> tuple[str, str]:
        return reference.comment_above(file, reference.line_of(file, line, key))

    assert meaning(4, "ONE") == meaning(4, "TWO") == ("", "")
    assert meaning(5, "THREE") == ("Of three.", "")
    assert meaning(5, "FOUR") == ("", "")
    assert meaning(11, "FIVE") == ("Of five.", "shared with them")


def test_the_page_has_a_table_for_each_group(modules):
    page = modules[1].page()
    table = page.split("\n## SOLVER.EARLY_STOPPING\n")[1].split("\n## ")[0].strip()
    assert table.splitlines()[2:] == [
        "| `PATIENCE` | `0` | Stop after so many evaluations without a gain of TEST.BEST\\_METRIC; "
        "0 = never. |",
        "| `MIN_GAIN` | `0.0` | A gain is larger than this. |",
    ]
    assert "| `POLY_LR_POWER` | `0.9` |" in page
    assert "(*shared with Detectron2's DeepLab project*) |" in page
