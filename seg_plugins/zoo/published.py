"""Published figures of the shipped configurations whose data or GPUs are not everybody's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """What a configuration is held to.

    Attributes:
        config: shipped configuration.
        metric: group and name, as evaluations call it; percent.
        value: published.
        source: of the value.
        tolerance: points by which a training of one's own may differ; runs with other seeds do.
    """

    config: str
    metric: str
    value: float
    source: str
    tolerance: float = 0.5


_ZOO = "Detectron2's model zoo"
_MASK_RCNN = (("r50_c4", 32.2, 34.4), ("r50_fpn", 35.2, 37.2), ("r101_c4", None, 36.7),
              ("r101_fpn", None, 38.6))  # fmt: skip
_ONE_STAGE = (
    ("solo_r50_1x", 32.9, "Wang et al. 2020 (SOLO)"),
    ("solo_r50_3x", 35.8, "Wang et al. 2020 (SOLO)"),
    ("solo_r101_3x", 37.1, "Wang et al. 2020 (SOLO)"),
    ("solo_v2_r50_1x", 34.8, "Wang et al. 2020 (SOLOv2), AdelaiDet"),
    ("solo_v2_r50_3x", 37.6, "Wang et al. 2020 (SOLOv2), AdelaiDet"),
    ("cond_inst_r50_1x", 35.7, "Tian et al. 2020, AdelaiDet"),
    ("cond_inst_r50_3x", 37.5, "Tian et al. 2020, AdelaiDet"),
    ("polar_mask_r50_1x", 29.2, "Xie et al. 2020"),
    ("polar_mask_r101_1x", 30.7, "Xie et al. 2020"),
    ("yolact_r50", 28.2, "Bolya et al. 2019 (test-dev)"),
    ("yolact_r101", 29.8, "Bolya et al. 2019 (test-dev)"),
)
_CHEN = "Chen et al. 2018"

PUBLISHED = {
    row.config: row
    for row in (
        *(
            Published(f"coco/mask_rcnn_{name}_{length}.yaml", "segm/AP", value, _ZOO)
            for name, *values in _MASK_RCNN
            for length, value in zip(("1x", "3x"), values, strict=True)
            if value is not None
        ),
        *(
            Published(f"coco/{name}.yaml", "segm/AP", value, source)
            for name, value, source in _ONE_STAGE
        ),
        Published("coco/panoptic_fpn_r50_1x.yaml", "panoptic_seg/PQ", 39.4, _ZOO),
        Published("coco/panoptic_fpn_r50_3x.yaml", "panoptic_seg/PQ", 41.5, _ZOO),
        Published("cityscapes/mask_rcnn_r50_fpn.yaml", "segm/AP", 36.5, _ZOO, 1.0),
        Published(
            "cityscapes/deeplabv3plus_r103.yaml", "sem_seg/mIoU", 80.0,
            "Detectron2's DeepLab project", 1.0,
        ),
        Published("cityscapes/deeplabv3plus_x65.yaml", "sem_seg/mIoU", 78.79, _CHEN, 1.0),
        Published(
            "cityscapes/panoptic_bottom_up_r52.yaml", "panoptic_seg/PQ", 60.3,
            "Detectron2's Panoptic-DeepLab project", 1.0,
        ),
        Published("cityscapes/panoptic_adaptis_r50.yaml", "segm/AP", 32.3,
                  "Sofiiuk et al. 2019", 1.0),
        Published("voc/deeplabv3plus_x65.yaml", "sem_seg/mIoU", 79.93, _CHEN, 1.0),
        Published("voc/deeplabv3plus_x65_separable.yaml", "sem_seg/mIoU", 79.79, _CHEN, 1.0),
        Published("voc/fcn32s_vgg16.yaml", "sem_seg/mIoU", 63.6, "reference release, seg11valid"),
        Published("voc/fcn16s_vgg16.yaml", "sem_seg/mIoU", 65.0, "reference release, seg11valid"),
        Published("voc/fcn8s_vgg16.yaml", "sem_seg/mIoU", 65.5, "reference release, seg11valid"),
    )
}  # fmt: skip
