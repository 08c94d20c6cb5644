"""Every Bash and Python block of the pages is run or says why not; every command is a valid one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from seg_plugins import get_cfg
from seg_plugins.arguments.commands import COMMANDS, arguments_of, command_parser
from seg_plugins.config import get_value

import pytest
from blocks import PAGES, ROOT, Block, blocks_of, command_lines, command_of
from PIL import Image

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
TUTORIALS = [page for page in PAGES if page.startswith("docs/tutorial_")]
# What makes a training of the tutorials one of seconds: two iterations, and small reports.
QUICK = "SOLVER.EPOCHS 0.4 TEST.REPORT_IMAGES 1 TEST.BOOTSTRAP 20 TEST.PICTURES 2 SEED 1"


def runs(page: str) -> bool:
    return any(b.language in ("bash", "python") and not b.marker for b in blocks_of(page))


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.marker], ids=lambda b: b.place)
def test_a_marker_says_why_or_which_test(block):
    kind, _, file = block.marker.rpartition(" ")
    if kind == "run by":
        assert Path(block.page).name in (ROOT / file).read_text(encoding="utf-8")
    else:
        assert len(block.marker.removeprefix("not run: ")) >= 8
        assert block.marker.startswith("not run: ")


def commands() -> list[tuple[Block, list[str]]]:
    """Every line of a Bash block that runs a command of this package."""
    lines = [(b, words) for b in BLOCKS if b.language == "bash" for words in command_lines(b.code)]
    return [(block, words) for block, words in lines if command_of(words)]


@pytest.mark.parametrize(
    ("block", "words"), commands(), ids=lambda x: x.place if isinstance(x, Block) else x[0]
)
def test_a_command_has_flags_files_and_keys_that_there_are(block, words, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    command, rest = command_of(words)
    assert command in COMMANDS
    if "..." in rest:  # for the flags of the line before
        rest.remove("...")
        rest += ["--config-file", "c.yaml", "--input", "i", "--output", "o"]
    parser = command_parser(command)
    args = parser.parse_args(rest)
    if hasattr(arguments_of(command), "check_arguments"):
        arguments_of(command).check_arguments(parser, args)
    config = getattr(args, "config_file", None) or ""
    assert not config.startswith("configs/") or (ROOT / config).is_file()
    options = getattr(args, "opts", None) or []
    assert len(options) % 2 == 0
    for key in options[::2]:
        get_value(get_cfg(), key)  # raises for a key that there is not


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language == "bash"], ids=lambda b: b.place
)
def test_scripts_that_are_run_exist(block):
    for words in command_lines(block.code):
        for word in words:
            assert not word.startswith(("tools/", "configs/")) or (ROOT / word).exists(), word


def run_pages(pages: list[str], folder: Path) -> str:
    """Run pages one after the other, in a folder; returns what they print."""
    result = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("run_pages.py")), *pages],
        cwd=folder, capture_output=True, text=True,
        env={**os.environ, "QUICK": QUICK, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def practised(tmp_path_factory) -> Path:
    """A folder in which the tutorials have been followed."""
    folder = tmp_path_factory.mktemp("tutorials")
    for page in TUTORIALS:
        shutil.rmtree(folder / "practice", ignore_errors=True)  # each page makes it
        run_pages([page], folder)
    return folder


@pytest.mark.slow
def test_the_tutorials_give_what_they_say(practised):
    results = practised / "results"
    pictures = {
        "scenes": ["overlay", "mask"],
        "objects": ["overlay"],
        "rooms": ["overlay", "panoptic"],
    }
    for name, kinds in pictures.items():
        for kind in kinds:
            assert len(list((results / name / kind).glob("*.png"))) == 8
        for file in ("report.html", "config.yaml", "model_best.pth"):
            assert (practised / "output" / name / file).is_file()
    assert (practised / "labels.png").is_file()
    assert (results / "objects/instances.json").is_file()
    assert (practised / "output/rooms_scores/report.html").is_file()


@pytest.mark.slow
def test_the_other_pages_run(practised, tmp_path):
    """In a checkout with a trained model in output/run, which the tutorial made."""
    for name in ("tools", "configs", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(practised / "practice", tmp_path / "practice")
    shutil.copy(practised / "my_masks.yaml", tmp_path / "my_data.yaml")
    shutil.copy(practised / "my_masks.yaml", tmp_path)
    run = practised / "output/scenes"
    for name in ("run", "run_a", "run_b", "a", "b"):
        shutil.copytree(run, tmp_path / "output" / name)
    for name in ("seed_1", "seed_2"):
        shutil.copytree(run, tmp_path / "output/run" / name)
    (tmp_path / "run").symlink_to("output/run")
    (tmp_path / "photos").mkdir()
    picture = Image.open(practised / "practice/images/val/0000.png")
    for name in ("photo.jpg", "street.jpg", "photos/street.jpg"):
        picture.save(tmp_path / name)
    pages = [page for page in PAGES if page not in TUTORIALS and runs(page)]
    printed = run_pages(pages, tmp_path)
    assert {line.split(":")[0] for line in printed.splitlines() if line.startswith("== ")} == {
        f"== {page}" for page in pages
    }
    assert (tmp_path / "results/overlay/street.png").is_file()
    assert (tmp_path / "output/comparison.html").is_file() or (
        tmp_path / "comparison.html"
    ).is_file()
