"""Every file of this package that a document, a message or a comment names is there.

Links are the matter of `documents/test_links.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMED = re.compile(
    r"(?<![\w/.-])(?:tools|seg_plugins|tests|configs|datasets|docs)/[\w./-]*\.(?:py|md|sh|yaml)\b"
)
# Names that stand for files of the reader's own.
EXAMPLES = {"datasets/my.yaml"}


@pytest.mark.parametrize("folder", ["docs", "seg_plugins", "tools", "datasets", "."])
def test_files_that_are_named_exist(folder):
    base = ROOT / folder
    files = base.glob("*.md") if folder == "." else base.rglob("*")
    missing = []
    for file in files:
        if file.suffix not in (".md", ".py", ".yaml"):
            continue
        text = file.read_text(encoding="utf-8")
        for name in sorted(set(NAMED.findall(text)) - EXAMPLES):
            if not any(letter.isupper() for letter in name) and not (ROOT / name).exists():
                missing.append(f"{file.relative_to(ROOT)}: {name}")
    assert not missing
