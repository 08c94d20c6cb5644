"""docs/architecture.md and its picture show the imports that are there."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from test_import_direction import ALLOWED, PACKAGE

DOCS = PACKAGE.parent / "docs"
TEXT = (DOCS / "architecture.md").read_text(encoding="utf-8")
PICTURE = ElementTree.parse(DOCS / "images" / "architecture.svg").getroot()
SVG = "{http://www.w3.org/2000/svg}"
# Corner and size of each part's box in the picture.
BOXES = {
    box.get("id"): tuple(float(box.get(key)) for key in ("x", "y", "width", "height"))
    for box in PICTURE.iter(f"{SVG}rect")
    if box.get("id")
}
# From, to -> where the line starts and ends.
LINES = {
    (line.get("data-from"), line.get("data-to")): [
        float(line.get(key)) for key in ("x1", "y1", "x2", "y2")
    ]
    for line in PICTURE.iter(f"{SVG}line")
}


def reached(part: str) -> set[str]:
    """What a part imports, and what that imports in its turn."""
    return ALLOWED[part].union(*map(reached, ALLOWED[part]))


def arrows(part: str) -> set[str]:
    """The imports that do not follow from the others: no other import reaches the same part."""
    return {to for to in ALLOWED[part] if to not in set().union(*map(reached, ALLOWED[part]))}


def in_words(part: str) -> str:
    return f"{part}/" if (PACKAGE / part).is_dir() else f"{part}.py"


def test_arrows_leave_out_what_follows():
    assert arrows("engine") == {"plugins", "visualization"}
    assert arrows("data") == {"config", "tasks"}  # io follows from both
    assert arrows("io") == set()


def test_the_picture_has_every_part_and_every_arrow():
    assert set(BOXES) == set(ALLOWED)
    assert set(LINES) == {(part, to) for part in ALLOWED for to in arrows(part)}
    assert len(LINES) == len(list(PICTURE.iter(f"{SVG}line")))


def test_boxes_bear_the_names_of_the_parts():
    texts = [(float(t.get("x")), float(t.get("y")), t.text) for t in PICTURE.iter(f"{SVG}text")]
    for part, (x, y, width, height) in BOXES.items():
        inside = [text for at, down, text in texts if x < at < x + width and y < down < y + height]
        assert inside[0] == in_words(part)


def test_lines_lead_down_from_box_to_box_and_through_no_other():
    for (start, end), (x1, y1, x2, y2) in LINES.items():
        x, y, width, height = BOXES[start]
        assert x <= x1 <= x + width, (start, end)
        assert y1 == y + height, (start, end)
        x, y, width, height = BOXES[end]
        assert x <= x2 <= x + width, (start, end)
        assert y2 == y > y1, (start, end)
        for other in set(BOXES) - {start, end}:
            x, y, width, height = BOXES[other]
            for step in range(201):
                at, down = x1 + (x2 - x1) * step / 200, y1 + (y2 - y1) * step / 200
                hit = x <= at <= x + width and y <= down <= y + height
                assert not hit, f"{start} -> {end} crosses {other}"


def test_the_table_has_the_same_arrows():
    table = {
        part: (set(re.findall(r"`([\w/.]+)`", drawn)), set(re.findall(r"`([\w/.]+)`", others)))
        for part, drawn, others in re.findall(r"^\| `([\w/.]+)` \|(.*)\|(.*)\|$", TEXT, re.M)
    }
    assert table == {
        in_words(part): (
            set(map(in_words, arrows(part))),
            set(map(in_words, ALLOWED[part] - arrows(part))),
        )
        for part in ALLOWED
    }


def test_every_folder_has_a_section_whose_files_are_there():
    sections = dict(re.findall(r"^### `(\w+)/`\n(.*?)(?=^##|\Z)", TEXT, re.M | re.S))
    assert set(sections) == {part for part in ALLOWED if (PACKAGE / part).is_dir()}
    for part, text in sections.items():
        for name in re.findall(r"`([\w/]+\.py|\w+/)`", text):
            assert (PACKAGE / part / name).exists(), f"{part}/: {name}"
