"""timm's pretrained weights as an address for MODEL.WEIGHTS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from iopath.common.file_io import get_cache_dir

from ...io.files import write_atomically
from ...io.weights.addresses import Address
from .timm import create_timm_model


class TimmWeights(Address):
    """``timm://NAME``: the weights of a timm model for a :class:`~.timm.TimmBackbone`.

    As with ``detectron2://`` a model is built without a network, and the checkpointer, Detectron2's
    too, fetches the weights when they are to be loaded. They are matched by the ends of names, so
    that the backbone may lie below a pyramid. The file stays in iopath's cache.
    """

    prefix = "timm://"

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        """A file with the weights.

        Raises:
            ConfigError: timm has no such model, or its weights are not at hand.
        """
        name = path.removeprefix(self.prefix)
        file = Path(get_cache_dir()) / "timm" / f"{name}.pth"
        if force or not file.is_file():
            state = create_timm_model(name, pretrained=True).state_dict()
            content = {f"model.{key}": value for key, value in state.items()}
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(
                file,
                lambda out: torch.save({"model": content, "matching_heuristics": True}, out),
            )
        return str(file)
