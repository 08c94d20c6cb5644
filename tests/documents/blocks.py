"""The code blocks of README.md and docs/*.md, and how they are run.

A block is run by `test_document_pages.py` as it stands, unless an HTML comment in the line before
it, which readers do not see, says why not::

    <!-- not run: needs COCO -->
    <!-- run by tests/export/test_documentation.py -->
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")))

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_MARKER = re.compile(r"<!-- (.*?) -->\s*\Z")
_FILE = re.compile(r"`([\w./]+\.yaml)`")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: its file, e.g. ``docs/export.md``.
        line: of its first line, from 1.
        language: after the fence; may be empty.
        code: between the fences.
        marker: of the comment before it; empty where there is none.
        file: the last YAML file that the text before it names: what the block is the content of.
    """

    page: str
    line: int
    language: str
    code: str
    marker: str
    file: str

    @property
    def place(self) -> str:
        """Page and line, for messages."""
        return f"{self.page}:{self.line}"


def blocks_of(page: str) -> list[Block]:
    """All blocks of a page, in its order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found, end = [], 0
    for match in _BLOCK.finditer(text):
        before = text[end : match.start()]
        marker, files = _MARKER.search(before), _FILE.findall(before)
        line = text.count("\n", 0, match.start(2)) + 1
        found.append(Block(page, line, match[1], match[2], marker[1] if marker else "",
                           files[-1] if files else ""))  # fmt: skip
        end = match.end()
    return found


def command_lines(code: str) -> list[list[str]]:
    """The words of each command of a Bash block; comments and line ends by a backslash are gone."""
    lines = code.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def command_of(words: list[str]) -> tuple[str, list[str]] | None:
    """The command of `seg-plugins` that a line runs, with its words; None: it runs none.

    It may be `seg-plugins train`, `python -m seg_plugins train`, or a script of tools/, also below
    `torchrun`.
    """
    for i, word in enumerate(words):
        if word == "seg-plugins" and i == 0:
            return words[1], words[2:]
        if word == "seg_plugins" and words[i - 1] == "-m":
            return words[i + 1], words[i + 2 :]
        if re.fullmatch(r"tools/\w+\.py", word):
            started = re.search(r"^    main\(\"([\w-]+)\"\)$", (ROOT / word).read_text(), re.M)
            return (started[1], words[i + 1 :]) if started else None
    return None
