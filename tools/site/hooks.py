"""What `mkdocs build` does beside turning docs/*.md into pages (named in mkdocs.yml).

The pages are written for a reader of the repository: they stand where they are, beside README and
the others at the top, and link to each other and to files by relative paths. Here

* the Markdown files outside docs/ become pages as well;
* links that leave docs/ lead to those pages, and to copies of other files;
* notebooks become pages: text, code and the pictures that are in their text;
* the reference is written: configuration keys, and a page of docstrings for each part.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path

import config_reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
log = get_plugin_logger("site")

# Page of the site -> Markdown file of the repository.
OUTSIDE = {
    "index.md": "README.md",
    "model_zoo.md": "MODEL_ZOO.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
    "datasets.md": "datasets/README.md",
}
# A folder that links name -> the page that shows what is in it.
FOLDERS = {"seg_plugins/config": "reference/configuration.md"}
# Where other files of the repository that links name are copied.
COPIES = "files"
# The parts with a page of docstrings, in the order of the menu.
PARTS = (
    "seg_plugins", "seg_plugins.config", "seg_plugins.data", "seg_plugins.modeling",
    "seg_plugins.ops", "seg_plugins.evaluation", "seg_plugins.engine", "seg_plugins.prediction",
    "seg_plugins.export", "seg_plugins.zoo", "seg_plugins.testing",
)  # fmt: skip

FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.M | re.S)
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
# Sphinx's roles in docstrings, which Markdown does not know: :class:`Name`, :func:`~a.b.name`.
ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):<code>~?(?:[\w.]+\.)?(\w+)</code>")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not lie in docs/."""
    for page, source in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for notebook in sorted((ROOT / "docs/notebooks").glob("*.ipynb")):
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md",
                                    content=notebook_page(notebook)))  # fmt: skip
    files.append(
        File.generated(config, "reference/configuration.md", content=config_reference.page())
    )
    for part in PARTS:
        files.append(File.generated(config, f"reference/api/{part}.md", content=api_page(part)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where their targets are in the site."""

    def lead(match: re.Match[str]) -> str:
        before, target, after = match.groups()
        return before + site_link(target, page.file.src_uri, config, files) + after

    parts, start = [], 0
    for fence in FENCE.finditer(markdown):  # code is left as it stands
        parts += [LINK.sub(lead, markdown[start : fence.start()]), fence.group()]
        start = fence.end()
    return "".join([*parts, LINK.sub(lead, markdown[start:])])


def on_page_content(html: str, **_: object) -> str:
    """Write the names in docstrings as Markdown would."""
    return ROLE.sub(r"<code>\1</code>", html)


def site_link(target: str, page: str, config: MkDocsConfig, files: Files) -> str:
    """A link of a page as it is in the site.

    Args:
        target: as it stands in the Markdown file: relative to that file, or a URL.
        page: the page's path in the site, e.g. ``index.md``.
        config: of the site.
        files: of the site; a file of the repository that is no page is added.
    """
    if re.match(r"[a-z]+:|#|/", target):
        return target
    path, _, anchor = target.partition("#")
    source = OUTSIDE.get(page, f"docs/{page}")
    wanted = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    pages = {file: name for name, file in OUTSIDE.items()}
    if wanted in pages:
        found = pages[wanted]
    elif wanted in FOLDERS:
        found = FOLDERS[wanted]
    elif wanted.startswith("docs/"):
        found = wanted.removeprefix("docs/").replace(".ipynb", ".md")
    elif (ROOT / wanted).is_file():
        found = f"{COPIES}/{wanted}"
        if files.get_file_from_path(found) is None:
            files.append(File.generated(config, found, abs_src_path=str(ROOT / wanted)))
    else:
        log.warning("%s links to %s, which is no file or page", source, target)
        return target
    link = posixpath.relpath(found, posixpath.dirname(page) or ".")
    return f"{link}#{anchor}" if anchor else link


def notebook_page(notebook: Path) -> str:
    """A notebook as Markdown: its text, and its code in blocks. Outputs are not stored in it."""
    parts = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    file = f"<a href='{notebook.name}' download>{notebook.name}</a>"
    return "\n\n".join([*parts, f"This page as a notebook, to run it: {file}"])


def api_page(part: str) -> str:
    """The page of a part: what it makes public (``__all__``), from the docstrings."""
    return f"# {part}\n\n::: {part}\n"
