"""Curves and large matrices by Matplotlib, as data URIs.

Matplotlib is imported by the first drawing: it takes a good part of a second, and every training
imports this module long before its report.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Name -> points (x, y).
Lines = Mapping[str, Sequence[tuple[float, float]]]

_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: small, and readable by the browser
    "svg.hashsalt": "report",  # the same page from the same files
    "text.parse_math": False,  # a class may be called "$x$"
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}
_COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000"]


def curves(
    lines: Lines,
    x_label: str,
    y_label: str,
    *,
    limits: tuple[float, float] | None = None,
    log: bool = False,
) -> str:
    """A line chart.

    Args:
        lines: points that are not finite leave a gap.
        x_label: of the axis.
        y_label: of the axis.
        limits: of the y axis.
        log: a logarithmic y axis, where all values are positive and far apart.

    Returns:
        ``data:image/svg+xml;base64,...``.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.rcsetup import cycler
    from matplotlib.ticker import NullFormatter

    with rc_context({**_STYLE, "axes.prop_cycle": cycler(color=_COLORS)}):
        figure = Figure(figsize=(5.6, 3.1), layout="constrained")
        axes = figure.add_subplot()
        drawn = []
        for points in lines.values():
            x, y = zip(*points, strict=True) if points else ((), ())
            few = len(points) < 20
            drawn += axes.plot(x, y, marker="o" if few else None, markersize=3, linewidth=1.3)
        values = [y for points in lines.values() for _, y in points]
        if log and values and 0 < min(values) < max(values) / 30:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        if limits:
            axes.set_ylim(*limits)
        axes.set_xlabel(printable(x_label))
        axes.set_ylabel(printable(y_label))
        if len(lines) > 1 or next(iter(lines), "") != y_label:
            # Matplotlib leaves names out that begin with an underscore.
            names = [" " + printable(name) for name in lines]
            legend = axes.legend(drawn, names, fontsize=8, ncols=2 if len(lines) > 8 else 1)
            # Names stay readable where a curve runs behind them.
            legend.get_frame().set(alpha=0.75, linewidth=0)
        return _uri(figure, "svg", "image/svg+xml")


def heat_map(shares: np.ndarray) -> str:
    """A matrix (K, K) of 0..1 too large for a table, as ``data:image/png;base64,...``."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**_STYLE, "axes.grid": False}):
        figure = Figure(figsize=(6.5, 6), layout="constrained", dpi=110)
        axes = figure.add_subplot()
        figure.colorbar(axes.imshow(shares, cmap="Blues", vmin=0, vmax=1), shrink=0.7)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        return _uri(figure, "png", "image/png")


def printable(text: str) -> str:
    """Text that any font and XML can hold: control characters become a question mark in a box."""
    return "".join(c if c.isprintable() and not 0xD800 <= ord(c) <= 0xDFFF else "�" for c in text)


def finite(value: object) -> TypeGuard[float]:
    """Whether a value of a JSON file is a number to draw."""
    return isinstance(value, int | float) and math.isfinite(value)


def _uri(figure: Figure, kind: str, mime: str) -> str:
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else None
    figure.savefig(buffer, format=kind, metadata=metadata)
    return data_uri(buffer.getvalue(), mime)


def data_uri(content: bytes, mime: str) -> str:
    """Bytes as an address that needs no other file."""
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"
