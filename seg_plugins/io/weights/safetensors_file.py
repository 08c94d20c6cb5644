"""Weights as ``.safetensors``: arrays by name, text beside them, a checksum, nothing executable."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import SegPluginsError

CHECKSUM = "sha256"


class WeightsFileError(SegPluginsError, ValueError):
    """A ``.safetensors`` file is damaged or was changed; the message names it."""


def checksum(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def safetensors_bytes(state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A file's content: tensors, text and under ``sha256`` the tensors' :func:`checksum`."""
    # Copies: the format does not know tensors that share memory.
    copies = {k: v.detach().to("cpu", copy=True).contiguous() for k, v in state.items()}
    return save(copies, {**metadata, CHECKSUM: checksum(copies)})


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and text of a file, whose checksum is compared where it has one.

    Raises:
        WeightsFileError: the file is damaged, or its tensors are not those of the checksum.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = dict(file.metadata() or {})
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise WeightsFileError(f"{path} is not a whole .safetensors file: {error}") from None
    if CHECKSUM in metadata and checksum(state) != metadata[CHECKSUM]:
        raise WeightsFileError(
            f"{path}: the tensors do not have the SHA-256 that the file names. It was changed "
            "after it was written; fetch or export it again."
        )
    return state, metadata
