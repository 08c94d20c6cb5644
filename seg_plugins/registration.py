"""The one place whose imports have effects: every name that Detectron2 learns stands here."""

from __future__ import annotations

from typing import Any

from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
)
from detectron2.projects.deeplab import build_resnet_deeplab_backbone
from detectron2.utils.file_io import PathManager
from fvcore.common.registry import Registry

from .data import (
    MAPPER_REGISTRY,
    InstanceMapper,
    PanopticMapper,
    SemanticMapper,
    register_datasets,
)
from .evaluation.build import (
    EVALUATOR_REGISTRY,
    build_cityscapes_instance,
    build_cityscapes_panoptic,
    build_cityscapes_semantic,
    build_electron_microscopy,
    build_instance,
    build_lvis,
    build_panoptic,
    build_semantic,
    build_volume,
)
from .io.weights.addresses import PackageWeights, TorchvisionWeights
from .modeling.backbones.pyramid import (
    build_resnet_extended_fpn_backbone,
    build_timm_fpn_backbone,
    build_vgg_fpn_backbone,
)
from .modeling.backbones.segnet_basic import build_segnet_basic_backbone
from .modeling.backbones.timm import build_timm_backbone
from .modeling.backbones.timm_weights import TimmWeights
from .modeling.backbones.unet import build_unet_backbone
from .modeling.backbones.vgg import build_vgg_backbone
from .modeling.instance_representations import (
    INSTANCE_REPRESENTATION_REGISTRY,
    REPRESENTATIONS,
)
from .modeling.meta_arch.adaptis import AdaptIS
from .modeling.meta_arch.mask_rcnn import MaskRCNNC4, MaskRCNNFPN
from .modeling.meta_arch.one_stage import ONE_STAGE_SYSTEMS
from .modeling.meta_arch.panoptic import PanopticSegmentor
from .modeling.meta_arch.panoptic_bottom_up import BottomUpPanopticSegmentor
from .modeling.meta_arch.patch_classifier import PatchClassifier
from .modeling.meta_arch.semantic import FCN, DeepLabV3Plus, SegNet, SemanticSystem, UNet
from .modeling.sem_seg_heads.deeplab_v3_plus import SemSegDeepLabV3PlusHead
from .modeling.sem_seg_heads.fcn import SemSegFCNHead
from .modeling.sem_seg_heads.pyramid import SemSegPyramidHead
from .modeling.sem_seg_heads.segnet import SemSegSegNetHead
from .modeling.sem_seg_heads.unet import SemSegUNetHead
from .zoo import ZooWeights


def _register(registry: Registry, *objects: Any) -> None:
    """Register each object under its ``__name__``; a second call changes nothing.

    Raises:
        RuntimeError: the name is taken by another object.
    """
    for obj in objects:
        name = obj.__name__
        if name not in registry:
            registry.register(obj)
        elif registry.get(name) is not obj:
            raise RuntimeError(
                f"'{name}' is registered in {registry._name} already, by "
                f"{registry.get(name).__module__}; seg_plugins cannot use the name too."
            )


def register_all() -> None:
    """Make Detectron2 know this package's systems, parts, datasets, mappers and evaluators."""
    _register_modeling()
    _register_data()
    _register_evaluation()


def _register_modeling() -> None:
    _register(META_ARCH_REGISTRY, DeepLabV3Plus, FCN, PatchClassifier, SegNet, SemanticSystem, UNet)
    _register(META_ARCH_REGISTRY, MaskRCNNC4, MaskRCNNFPN)
    _register(META_ARCH_REGISTRY, BottomUpPanopticSegmentor, PanopticSegmentor)
    _register(INSTANCE_REPRESENTATION_REGISTRY, *REPRESENTATIONS)
    _register(META_ARCH_REGISTRY, AdaptIS, *ONE_STAGE_SYSTEMS)
    _register(SEM_SEG_HEADS_REGISTRY, SemSegDeepLabV3PlusHead, SemSegFCNHead)
    _register(SEM_SEG_HEADS_REGISTRY, SemSegPyramidHead, SemSegSegNetHead, SemSegUNetHead)
    # The dilated ResNets are the DeepLab project's own, which registers them when imported.
    _register(BACKBONE_REGISTRY, build_resnet_deeplab_backbone, build_segnet_basic_backbone)
    _register(BACKBONE_REGISTRY, build_resnet_extended_fpn_backbone)
    _register(BACKBONE_REGISTRY, build_timm_backbone, build_timm_fpn_backbone)
    _register(BACKBONE_REGISTRY, build_unet_backbone, build_vgg_backbone, build_vgg_fpn_backbone)
    for address in (TimmWeights(), TorchvisionWeights(), PackageWeights(), ZooWeights()):
        PathManager.register_handler(address, allow_override=True)


def _register_data() -> None:
    _register(MAPPER_REGISTRY, SemanticMapper, InstanceMapper, PanopticMapper)
    register_datasets()


def _register_evaluation() -> None:
    semantic = {
        "sem_seg": build_semantic,
        "sem_seg_em": build_electron_microscopy,
        "sem_seg_volume": build_volume,
        "cityscapes_sem_seg": build_cityscapes_semantic,
    }
    instance = {
        "coco": build_instance,
        "lvis": build_lvis,
        "cityscapes_instance": build_cityscapes_instance,
    }
    panoptic = {
        "coco_panoptic_seg": build_panoptic,
        "ade20k_panoptic_seg": build_panoptic,
        "cityscapes_panoptic_seg": build_cityscapes_panoptic,
    }
    for task, builders in (("semantic", semantic), ("instance", instance), ("panoptic", panoptic)):
        for evaluator_type, builder in builders.items():
            EVALUATOR_REGISTRY.register(evaluator_type, builder, task=task)
