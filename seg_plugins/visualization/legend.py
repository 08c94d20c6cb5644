"""A legend beside a picture."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Of the picture's height; a font has at least so many pixels and at most so many.
_FONT_SHARE, _LEAST, _MOST = 1 / 28, 11, 28

Entry = tuple[tuple[int, int, int], str]


def beside(picture: np.ndarray, entries: Sequence[Entry]) -> np.ndarray:
    """Add a white panel with the entries at the right, in as many columns as they need.

    The panel becomes no wider than the picture, unless for its first column: what does not fit is
    counted in the last row.

    Args:
        picture: (H, W, 3) uint8, RGB.
        entries: (R, G, B) and text of each row, in order.

    Returns:
        (H, W + panel, 3) uint8; a lower picture than one row stays as it is.
    """
    height = picture.shape[0]
    size = int(min(max(height * _FONT_SHARE, _LEAST), _MOST))
    line, gap = size + size // 2, size // 2
    rows = (height - gap) // line
    if not entries or rows < 1:
        return picture
    font = _font(size)
    columns: list[list[Entry]] = []
    widths: list[int] = []
    for i in range(0, len(entries), rows):
        column = list(entries[i : i + rows])
        width = _width(column, font, size)
        if columns and sum(widths) + width > picture.shape[1]:
            left = len(entries) - i + 1
            columns[-1][-1] = ((255, 255, 255), f"+ {left} more")
            widths[-1] = _width(columns[-1], font, size)
            break
        columns.append(column)
        widths.append(width)
    panel = Image.new("RGB", (sum(widths), height), "white")
    draw = ImageDraw.Draw(panel)
    x = gap
    for column, width in zip(columns, widths, strict=True):
        for row, (color, text) in enumerate(column):
            y = gap + row * line
            draw.rectangle((x, y, x + size, y + size - 1), fill=tuple(color))
            middle = y + size / 2
            draw.text((x + size + gap, middle), text, fill="black", font=font, anchor="lm")
        x += width
    return np.hstack([picture, np.asarray(panel)])


def _width(column: Sequence[Entry], font: ImageFont.FreeTypeFont, size: int) -> int:
    return int(max(font.getlength(text) for _, text in column)) + size + 3 * (size // 2)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Matplotlib, which Detectron2 needs, brings a font with all of Europe's letters.
    import matplotlib  # here: it takes a second, and most commands draw no legend

    file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(file), size)
