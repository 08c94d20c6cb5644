"""Setting the keys of a node."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode


def set_defaults(node: CfgNode, **keys: Any) -> None:
    """Set keys that are not there yet."""
    for key, value in keys.items():
        node.setdefault(key, value)
