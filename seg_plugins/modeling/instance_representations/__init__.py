"""Instance representations: how one-stage systems write down an instance and read it back."""

from .adaptis import AdaptIS
from .base import INSTANCE_REPRESENTATION_REGISTRY, InstanceRepresentation, Truth
from .mask_forms import DenseMasks, OutlineMasks
from .solo import SOLO
from .solo_v2 import SOLOv2

#: Those of this package, registered under their names.
REPRESENTATIONS = (AdaptIS, SOLO, SOLOv2)

__all__ = [
    "INSTANCE_REPRESENTATION_REGISTRY",
    "REPRESENTATIONS",
    "DenseMasks",
    "InstanceRepresentation",
    "OutlineMasks",
    "Truth",
]
