"""Links of the Markdown files lead to files and headings that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    path
    for pattern in ("*.md", "docs/**/*.md", "datasets/*.md", "tests/**/*.md", "docker/*.md")
    for path in sorted(ROOT.glob(pattern))
]
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]*)(?:#([^)\s]*))?\)")


def anchors_of(text: str) -> set[str]:
    """The anchors of the headings, as the repository's web page and the site make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.M):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        number = sum(
            re.fullmatch(re.escape(name) + r"(-\d+)?", other) is not None for other in found
        )
        found.add(f"{name}-{number}" if number else name)
    return found


def wrong_links(file: Path, root: Path = ROOT) -> list[str]:
    """Links of a file that lead nowhere, or out of the repository."""
    wrong = []
    for path, anchor in LINK.findall(FENCE.sub("", file.read_text(encoding="utf-8"))):
        target = (file.parent / path).resolve() if path else file
        there = target.exists() and target.is_relative_to(root)
        if there and anchor:
            there = anchor in anchors_of(target.read_text(encoding="utf-8"))
        if not there:
            wrong.append(f"{path}#{anchor}" if anchor else path)
    return wrong


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(file):
    assert not wrong_links(file)


def test_the_check_sees_what_is_wrong(tmp_path):
    (tmp_path / "other.md").write_text(
        "# A `b`, c: d-e\n## Twice\n## Twice\n```\n# no heading\n```\n"
    )
    (tmp_path / "page.md").write_text(
        "# Here\n[1](other.md#a-b-c-d-e) [2](other.md#twice-1) [3](#here) [4](https://x.org/y)\n"
        "[5](gone.md) [6](other.md#no-heading) [7](#there) [8](../outside.md)\n"
        "```\n[code](gone.md)\n```\n"
    )
    (tmp_path.parent / "outside.md").touch()
    assert wrong_links(tmp_path / "page.md", tmp_path) == [
        "gone.md", "other.md#no-heading", "#there", "../outside.md",
    ]  # fmt: skip
