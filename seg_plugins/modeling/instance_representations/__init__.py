"""Instance representations: how one-stage systems write down an instance and read it back."""

from .adaptis import AdaptIS
from .base import INSTANCE_REPRESENTATION_REGISTRY, InstanceRepresentation, Truth
from .cond_inst import CondInst
from .instance_fcn import InstanceFCN
from .mask_forms import DenseMasks, OutlineMasks, WindowMasks
from .polar_mask import PolarMask
from .solo import SOLO
from .solo_v2 import SOLOv2
from .yolact import YOLACT

#: Those of this package, registered under their names.
REPRESENTATIONS = (AdaptIS, SOLO, SOLOv2, CondInst, PolarMask, YOLACT, InstanceFCN)

__all__ = [
    "INSTANCE_REPRESENTATION_REGISTRY",
    "REPRESENTATIONS",
    "DenseMasks",
    "InstanceRepresentation",
    "OutlineMasks",
    "Truth",
    "WindowMasks",
]
