"""Ways to run a model that leave its results and parameter names as they are."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import Backbone
from detectron2.utils import comm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..config import ConfigError

logger = logging.getLogger(__name__)


def apply_model_options(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """Apply ``MODEL.{CHANNELS_LAST,ACTIVATION_CHECKPOINTING,COMPILE}``.

    Raises:
        ConfigError: SyncBN in several processes on the CPU, or nothing to checkpoint.
    """
    _check_sync_bn(cfg, model)
    if cfg.MODEL.CHANNELS_LAST:
        model = model.to(memory_format=torch.channels_last)
    if cfg.MODEL.ACTIVATION_CHECKPOINTING:
        count = checkpoint_activations(model.backbone)
        if not count:
            raise ConfigError(
                f"MODEL.ACTIVATION_CHECKPOINTING: {type(model.backbone).__name__} has no blocks "
                "that could be computed again. Set it False."
            )
        logger.info("Activations of %d blocks are computed again in the backward pass", count)
    if cfg.MODEL.COMPILE:
        compile_parts(model, cfg.MODEL.COMPILE)
    return model


def _check_sync_bn(cfg: CfgNode, model: nn.Module) -> None:
    uses = any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    if uses and cfg.MODEL.DEVICE == "cpu" and comm.get_world_size() > 1:
        raise ConfigError(
            "SyncBN exchanges statistics between GPUs only. On the CPU with several processes set "
            "the NORM keys (MODEL.RESNETS.NORM, MODEL.SEM_SEG_HEAD.NORM, ...) to BN or GN."
        )


def compile_parts(model: nn.Module, backend: str) -> None:
    """Compile backbone and semantic head with ``torch.compile``, in place.

    Args:
        model: a system with ``backbone`` and perhaps ``sem_seg_head``.
        backend: of torch.compile, e.g. "inductor".

    What cannot be compiled runs as before, and a warning says so.

    Raises:
        ConfigError: an unknown backend.
    """
    known = torch.compiler.list_backends(exclude_tags=())
    if backend not in known:
        raise ConfigError(f"MODEL.COMPILE {backend} is not one of {', '.join(known)}")
    torch._dynamo.config.suppress_errors = True
    model.backbone.compile(backend=backend)
    head = getattr(model, "sem_seg_head", None)
    if head is not None and hasattr(head, "layers"):
        # Losses exchange counts between processes: they stay outside.
        head.layers = torch.compile(head.layers, backend=backend)
    logger.info("Backbone%s compiled by %s at first use", " and head" if head else "", backend)


def unused_features(model: nn.Module) -> list[str]:
    """Features of a system's backbones (an FPN's own, too) that no part has among its inputs.

    Parts name them as Detectron2's do: ``in_features``, ``box_in_features``, ...; where no part
    does, nothing is known and the list is empty.
    """
    used: set[str] = set()
    for module in model.modules():
        for name, value in vars(module).items():
            if name.endswith("in_features") and isinstance(value, (list, tuple, dict)):
                used.update(map(str, value))
    backbones = [module for module in model.modules() if isinstance(module, Backbone)]
    features = dict.fromkeys(name for backbone in backbones for name in backbone.output_shape())
    return [name for name in features if name not in used] if used else []


def checkpoint_activations(backbone: nn.Module) -> int:
    """Let a backbone's blocks keep their input only, and compute the rest again for gradients.

    A block is a member of a ``Sequential`` or ``ModuleList`` with two or more layers of its own,
    as in every residual network. Results and running statistics are the same.

    Returns:
        The number of blocks.
    """
    blocks: list[nn.Module] = []
    for module in backbone.modules():
        if isinstance(module, (nn.Sequential, nn.ModuleList)):
            blocks += [child for child in module.children() if _is_block(child)]
    outer = [b for b in blocks if not any(b is not o and b in set(o.modules()) for o in blocks)]
    for block in outer:
        block.forward = functools.partial(_again, block, block.forward)
    return len(outer)


def _is_block(module: nn.Module) -> bool:
    if isinstance(module, (nn.Sequential, nn.ModuleList)):
        return False
    layers = (m for m in module.modules() if m is not module)
    return sum(1 for m in layers if any(True for _ in m.parameters(recurse=False))) >= 2


def _again(block: nn.Module, forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not (block.training and torch.is_grad_enabled()):
        return forward(*args, **kwargs)
    return checkpoint(
        forward,
        *args,
        use_reentrant=False,
        context_fn=lambda: (contextlib.nullcontext(), _statistics_kept(block)),
        **kwargs,
    )


@contextlib.contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """The second pass must not count for the running statistics once more."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
