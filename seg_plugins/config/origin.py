"""Which settings the user made, and which came with a configuration that was there before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from .files import config_root, find_config, own_values
from .keys import get_cfg
from .loading import get_value, merge_file, merge_opts


class Origin:
    """The layers of a configuration: what was there, the user's file, the command line.

    A shipped file is no user's file: what stands in it was there before. So was what stands in
    the ``_BASE_`` of the user's file.

    Args:
        path: as :func:`load_config` takes it.
        opts: the same.
    """

    def __init__(self, path: str | Path, opts: Sequence[str] = ()) -> None:
        file = find_config(path)
        own, bases = own_values(file)
        if config_root().resolve() in file.resolve().parents:
            own, bases = {}, [file]
        cfg = get_cfg()
        for base in bases:
            merge_file(cfg, base)
        self._layers: list[tuple[set[str], CfgNode]] = [(set(), cfg.clone())]
        if own:
            merge_file(cfg, file)
            self._layers.append((set(_keys(own)), cfg.clone()))
        if opts:
            merge_opts(cfg, opts)
            self._layers.append((set(opts[::2]), cfg))

    def by_user(self, key: str) -> bool:
        """Whether the user's file or the command line sets a key."""
        return any(key in keys for keys, _ in self._layers)

    def beside(self, key: str, other: str) -> Any:
        """The value of `other` in the layer that sets `key` last."""
        layers = [cfg for keys, cfg in self._layers if key in keys] or [self._layers[0][1]]
        return get_value(layers[-1], other)


def _keys(content: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
