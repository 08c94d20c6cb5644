"""Weights by name, out of whatever layout a file keeps them in."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import SegPluginsError
from .safe_load import UnsafeFileError, load_pickle, load_torch
from .safetensors_file import WeightsFileError, read_safetensors

logger = logging.getLogger(__name__)

# Under this name checkpoints keep the EMA of the weights, which the model is used with.
EMA_KEY = "ema"
# Under one of these names files keep their weights; the first that holds arrays counts.
_PLACES = (
    "model", "state_dict", "model_state_dict", "model_state", "net", "network", "weights", "params",
)  # fmt: skip
# Parameters that are named where weights are not finite: the first show where it began.
_MAX_NAMES = 50
_DEPTH = 4  # places within places that are looked into
# Modules around others that leave their own name in those of the parameters, anywhere in them:
# torch.compile, activation checkpoints, fully sharded training.
_WRAPPERS = frozenset({"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"})
# What a name may begin with where the model was an attribute: DistributedDataParallel, Lightning.
_OWNERS = frozenset({"module", "model", "net", "network"})


class WeightsError(SegPluginsError, RuntimeError):
    """Weights could not be found, read or fitted; the message names the file and the fix."""


@dataclass
class Weights:
    """What a file holds.

    Attributes:
        path: the file.
        origin: how messages call it: the file, or a place in it.
        tensors: by the file's names.
        rest: whatever stands beside them: states of a training, settings.
        author: "Caffe2" for Detectron's releases and what Detectron2 made of them: names are
            Caffe's, and statistics of batch norms are folded into scale and shift.
        heuristics: names are matched by their ends, as Detectron2 does.
    """

    path: Path
    origin: str
    tensors: dict[str, Tensor]
    rest: dict[str, Any] = field(default_factory=dict)
    author: str = ""
    heuristics: bool = False


def read_weights(path: str | Path) -> Weights:
    """Read a file of any known format and layout; nothing in it is executed.

    Formats: ``torch.save``, ``.safetensors``, ``.npz``, and ``.pkl`` of arrays.

    Raises:
        WeightsError: the file cannot be read safely, or it is not clear where its weights are.
    """
    path = Path(path)
    try:
        kind = _format(path)
        if kind == "safetensors":
            return Weights(path, str(path), read_safetensors(path)[0])
        if kind == "npz":
            with np.load(path, allow_pickle=False) as file:
                content: Any = {name: np.asarray(file[name]) for name in file.files}
        else:
            content = load_pickle(path) if kind == "pickle" else load_torch(path)
    except (UnsafeFileError, WeightsFileError) as error:
        raise WeightsError(str(error)) from None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{path} could not be read: {error}") from None
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not weights by name")
    return _weights(path, dict(content), pickled=kind == "pickle")


def _format(path: Path) -> str:
    """By the content where it tells, else by the suffix."""
    with open(path, "rb") as file:
        start = file.read(9)
    if path.suffix == ".safetensors" or (start[8:] == b"{" and start[4:8] == b"\0" * 4):
        return "safetensors"
    if start.startswith(b"PK"):
        return "npz" if path.suffix == ".npz" else "torch"
    return "pickle" if path.suffix == ".pkl" else "torch"


def _weights(path: Path, content: dict[str, Any], *, pickled: bool) -> Weights:
    author = content.get("__author__", "")
    heuristics = bool(content.get("matching_heuristics", False))
    if pickled and not ("model" in content and author):
        # Caffe2's and Detectron's releases; detection models keep their arrays in "blobs".
        found = content.get("blobs", content)
        if isinstance(found, Mapping) and any(_is_array(value) for value in found.values()):
            weights = {k: v for k, v in arrays(found).items() if not k.endswith("_momentum")}
            return Weights(path, str(path), weights, {}, "Caffe2", heuristics=True)
    place, found = _find(content, path)
    if place == ("model_state",):
        author, heuristics = "pycls", True
    origin = f"'{'.'.join(place)}' of {path}" if place and place != ("model",) else str(path)
    rest = {k: v for k, v in content.items() if k not in place[:1]} if place else {}
    return Weights(path, origin, arrays(found), rest, str(author), heuristics)


def _find(content: Mapping[str, Any], path: Path) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    """Where in a file the weights are, and they themselves."""
    known = _known_place(content, _DEPTH)
    if known is not None:
        return known
    inner = {k: v for k, v in content.items() if isinstance(v, Mapping) and arrays(v)}
    if len(inner) == 1:
        name, found = next(iter(inner.items()))
        return (str(name),), found
    what = f"arrays in each of {named(inner)}" if inner else f"no arrays; it holds {named(content)}"
    raise WeightsError(
        f"{path} has {what}. Its weights should be a dict of tensors by name, alone in the file or "
        f"under one of {', '.join(_PLACES)}: torch.save({{'model': weights}}, 'new.pth')."
    )


def _known_place(
    content: Mapping[str, Any], depth: int
) -> tuple[tuple[str, ...], Mapping[str, Any]] | None:
    for name in _PLACES:
        if depth and isinstance(content.get(name), Mapping):
            deeper = _known_place(content[name], depth - 1)
            if deeper is not None:
                return (name, *deeper[0]), deeper[1]
    return ((), content) if arrays(content) else None


def _is_array(value: Any) -> bool:
    return torch.is_tensor(value) or (isinstance(value, np.ndarray) and value.dtype.kind in "biuf")


def arrays(values: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors and NumPy arrays of numbers in a dict, as tensors; the rest is left out."""
    return {
        name: value.detach() if torch.is_tensor(value) else _tensor(value)
        for name, value in values.items()
        if isinstance(name, str) and _is_array(value)
    }


def _tensor(value: np.ndarray) -> Tensor:
    native = value.astype(value.dtype.newbyteorder("="), copy=False)
    return torch.from_numpy(np.ascontiguousarray(native).reshape(value.shape))


def take_ema(weights: Weights) -> None:
    """Put the EMA of the weights, where the file has one, in place of the weights themselves.

    Raises:
        WeightsError: it is not that of all of them.
    """
    state = weights.rest.get(EMA_KEY)
    values = state.get("average") if isinstance(state, Mapping) else None
    if not isinstance(values, Mapping):
        if state is not None:
            logger.warning("'%s' in %s is not of this package: left out", EMA_KEY, weights.path)
        return
    average = arrays(values)
    odd = average.keys() ^ weights.tensors.keys()
    if odd:
        raise WeightsError(
            f"{weights.origin} has {len(average)} averaged weights of {len(weights.tensors)}; "
            f"{named(sorted(odd))} have no partner. The file was changed; without '{EMA_KEY}' "
            "in it the weights themselves are taken."
        )
    logger.info("Taking the averaged weights of %s", weights.path)
    weights.tensors.update(average)


def plain_name(name: str) -> str:
    """A parameter's name without the modules that were only wrapped around others."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def without_owner(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by names without wrappers, and without what all begin with where that is one."""
    result = {plain_name(name): value for name, value in tensors.items()}
    while result:
        first = {name.partition(".")[0] for name in result}
        if len(first) != 1 or not first <= _OWNERS:
            break
        result = {name.partition(".")[2]: value for name, value in result.items()}
    return result


def spellings(name: str) -> list[str]:
    """What a name of a file may be called in the model, the likeliest first."""
    parts = plain_name(name).split(".")
    result = [".".join(parts)]
    for i, part in enumerate(parts[:-1]):
        if part not in _OWNERS:
            break
        result.append(".".join(parts[i + 1 :]))
    result.append(".".join(part for part in parts if part != "module"))
    # Others' one-stage systems (AdelaiDet's) have their heads beside the backbone.
    result.append(f"representation.{result[0]}")
    return result


def bad_names(names: Sequence[str], values: Tensor) -> list[str]:
    """Names of those values (one for each name) that are not finite; at most 50."""
    finite = torch.isfinite(values.detach().float().cpu())
    return [name for name, ok in zip(names, finite.tolist(), strict=True) if not ok][:_MAX_NAMES]


def nonfinite_names(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity; at most 50."""
    names = [name for name, value in state.items() if torch.is_floating_point(value)]
    if not names:
        return []
    # 0 for a finite tensor, NaN otherwise; one transfer for all.
    marks = torch.stack([(state[name].detach().float() * 0).sum().cpu() for name in names])
    return bad_names(names, marks)


def named(names: Iterable[Any], most: int = 4) -> str:
    """A few of the names, and how many more there are."""
    shown = [str(name) for name in names]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more
