"""Backbones, heads, losses and meta-architectures; here, what parts of your own are made of."""

from .loss_terms import Loss, Losses, Sum
from .losses import LOSS_REGISTRY
from .meta_arch.semantic import SemanticSystem
from .sem_seg_heads.base import SemSegHead
from .semantic_loss import SemanticLoss

__all__ = [
    "LOSS_REGISTRY",
    "Loss",
    "Losses",
    "SemSegHead",
    "SemanticLoss",
    "SemanticSystem",
    "Sum",
]
