"""Text of pictures: a legend or a line below, names of objects inside."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Of the picture's width; a font has at least so many pixels and at most so many.
_FONT_SHARE, _LEAST, _MOST = 1 / 36, 11, 28

Color = tuple[int, int, int]
Entry = tuple[Color, str]


def below(picture: np.ndarray, entries: Sequence[Entry], size: int | None = None) -> np.ndarray:
    """Add a white panel with the entries below a picture, in as many rows as they need.

    The picture keeps its place and width. The panel becomes no higher than the picture, unless for
    its first row: what does not fit is counted at the end of the last one. An entry that is wider
    than the picture is cut.

    Args:
        picture: (H, W, 3) uint8, RGB.
        entries: (R, G, B) and text of each, in order.
        size: of the type in pixels; None: by the picture's width.

    Returns:
        (H + panel, W, 3) uint8; without entries, or of a picture without room for a word, the
        picture itself.
    """
    height, width = picture.shape[:2]
    size = size or _size_for(width)
    if not entries or width < 4 * size:
        return picture
    font = _font(size)
    gap, line = size // 2, size + size // 2
    most = max((height - gap) // line, 1)

    def room(text: str) -> int:
        return int(font.getlength(text)) + size + 2 * gap

    rows: list[list[Entry]] = [[]]
    at = gap
    for entry in entries:
        if rows[-1] and at + room(entry[1]) > width:
            rows.append([])
            at = gap
        rows[-1].append(entry)
        at += room(entry[1])
    if len(rows) > most:
        left = sum(len(row) for row in rows[most:])
        last = rows[most - 1]
        note = f"+ {left} more"
        while last and gap + sum(room(text) for _, text in last) + room(note) > width:
            left += 1
            last.pop()
            note = f"+ {left} more"
        last.append(((255, 255, 255), note))
    panel = Image.new("RGB", (width, gap + min(len(rows), most) * line), "white")
    draw = ImageDraw.Draw(panel)
    for number, row in enumerate(rows[:most]):
        x, y = gap, gap + number * line
        for color, text in row:
            draw.rectangle((x, y, x + size - 1, y + size - 1), fill=tuple(color))
            draw.text((x + size + gap, y + size / 2), text, fill="black", font=font, anchor="lm")
            x += room(text)
    return np.vstack([picture, np.asarray(panel)])


def line(width: int, texts: Sequence[str], size: int) -> np.ndarray:
    """A white line of black text: each at the left of its share of the width, cut where it ends.

    Args:
        width: of the line, in pixels.
        texts: from left to right.
        size: of the type in pixels.

    Returns:
        (height of the line, width, 3) uint8.
    """
    font = _font(size)
    panel = Image.new("RGB", (width, size + size // 2), "white")
    draw = ImageDraw.Draw(panel)
    share = width // max(len(texts), 1)
    for i, text in enumerate(texts):
        shown = text
        while shown and font.getlength(shown) > share - size // 2:
            shown = shown[:-2] + "…" if len(shown) > 1 else ""
        draw.text((i * share, panel.height / 2), shown, fill="black", font=font, anchor="lm")
    return np.asarray(panel)


def write_names(
    picture: np.ndarray, boxes: np.ndarray, names: Sequence[str], colors: Sequence[Color]
) -> None:
    """Write names on grounds of their colours into a picture, at their objects' boxes but inside.

    A name that would take more room than its object's box is left out: among many small objects
    names would hide what they name.

    Args:
        picture: (H, W, 3) uint8, RGB.
        boxes: (N, 4) x0, y0, x1, y1 of each object, in pixels.
        names: of each, with its score.
        colors: of each.
    """
    height, width = picture.shape[:2]
    size = _size_for(width)
    font = _font(size)
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for (x, y, x1, y1), name, color in zip(boxes, names, colors, strict=True):
        wide = int(font.getlength(name)) + 3
        if wide * (size + 1) > (x1 - x) * (y1 - y):
            continue
        left = min(max(int(x), 0), max(width - wide, 0))
        top = min(max(int(y) - size - 1, 0), max(height - size - 2, 0))
        draw.rectangle((left, top, left + wide, top + size + 1), fill=tuple(color))
        # Black or white, whichever is farther from the ground's luminance.
        light = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140
        ink = "black" if light else "white"
        draw.text((left + 2, top + size / 2 + 1), name, fill=ink, font=font, anchor="lm")
    picture[:] = np.asarray(image)


def _size_for(width: int) -> int:
    return int(min(max(width * _FONT_SHARE, _LEAST), _MOST))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Matplotlib, which Detectron2 needs, brings a font with all of Europe's letters.
    import matplotlib  # here: it takes a second, and most commands draw no legend

    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(file), size)
