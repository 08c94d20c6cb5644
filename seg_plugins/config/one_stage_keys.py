"""Keys of the one-stage systems of instance segmentation.

The number of classes is MODEL.ROI_HEADS.NUM_CLASSES, as of Mask R-CNN; the most instances of an
image TEST.DETECTIONS_PER_IMAGE; the form of the masks MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT.
"""

from __future__ import annotations

from detectron2.config import CfgNode

from .defaults import set_defaults


def add_one_stage_keys(model: CfgNode) -> None:
    """MODEL.ONE_STAGE, and a node for each representation."""
    set_defaults(model, ONE_STAGE=CfgNode())
    # An instance representation, for META_ARCHITECTURE OneStageInstanceSegmentor and for
    # PanopticSegmentor in Mask R-CNN's place. The systems that are named after one need no key.
    set_defaults(model.ONE_STAGE, REPRESENTATION="")
    _add_solo_keys(model)
    _add_cond_inst_keys(model)
    _add_polar_mask_keys(model)


def _add_solo_keys(model: CfgNode) -> None:
    """MODEL.SOLO and MODEL.SOLOV2; names as in AdelaiDet's SOLOv2."""
    set_defaults(model, SOLO=CfgNode(), SOLOV2=CfgNode())
    for node in (model.SOLO, model.SOLOV2):
        # A level for each entry: its feature, cells of its grid along a side, the objects it gets
        # by the root of their box's area in pixels, and the cells that a mask has more than.
        set_defaults(node, INSTANCE_IN_FEATURES=["p2", "p3", "p4", "p5", "p6"])
        set_defaults(node, NUM_GRIDS=[40, 36, 24, 16, 12])
        ranges = [[1, 96], [48, 192], [96, 384], [192, 768], [384, 2048]]
        set_defaults(node, FPN_SCALE_RANGES=ranges, FPN_INSTANCE_STRIDES=[8, 8, 16, 32, 32])
        # The cells of an object lie in its box shrunk to this share.
        set_defaults(node, SIGMA=0.2, NORM="GN", PRIOR_PROB=0.01)
        set_defaults(node, LOSS=CfgNode())
        set_defaults(node.LOSS, FOCAL_WEIGHT=1.0, DICE_WEIGHT=3.0)
        # Least category score; then at most NMS_PRE masks; "matrix" (kernel "gaussian" or
        # "linear") or "mask" suppression; least score after it; least probability of a pixel.
        set_defaults(node, SCORE_THR=0.1, NMS_PRE=500, NMS_TYPE="matrix", NMS_KERNEL="gaussian")
        set_defaults(node, NMS_SIGMA=2.0, UPDATE_THR=0.05, MASK_THR=0.5)
    # The towers; masks are so many times finer than the maps they are predicted from.
    set_defaults(model.SOLO, INSTANCE_CHANNELS=256, NUM_INSTANCE_CONVS=7, MASK_UPSAMPLING=2)
    set_defaults(model.SOLOV2, INSTANCE_CHANNELS=512, NUM_INSTANCE_CONVS=4, MASK_UPSAMPLING=1)
    # The mask features: levels, channels, and channels after the last convolution, which are the
    # numbers of a kernel.
    set_defaults(model.SOLOV2, MASK_IN_FEATURES=["p2", "p3", "p4", "p5"], MASK_CHANNELS=128)
    set_defaults(model.SOLOV2, NUM_KERNELS=256)


def _add_point_keys(node: CfgNode) -> None:
    """What CondInst and PolarMask share; names as in AdelaiDet's FCOS."""
    set_defaults(node, IN_FEATURES=["p3", "p4", "p5", "p6", "p7"])
    # An object belongs to the levels by the longest distance from a point to a side of its box:
    # the borders between them, in pixels. Its points are nearer to its centre of mass than so many
    # strides.
    set_defaults(node, SIZES_OF_INTEREST=[64, 128, 256, 512], POS_RADIUS=1.5)
    # The towers.
    set_defaults(node, CHANNELS=256, NUM_CONVS=4, NORM="GN", PRIOR_PROB=0.01)
    # Least score; then at most so many finds of a level.
    set_defaults(node, SCORE_THRESH_TEST=0.05, PRE_NMS_TOPK_TEST=1000)


def _add_cond_inst_keys(model: CfgNode) -> None:
    """MODEL.CONDINST; names as in AdelaiDet."""
    set_defaults(model, CONDINST=CfgNode())
    node = model.CONDINST
    _add_point_keys(node)
    # The loss of the boxes: "giou" or "iou"; IoU of boxes above which the worse one goes.
    set_defaults(node, LOC_LOSS_TYPE="giou", NMS_THRESH_TEST=0.6)
    # The maps that all masks share: the first level gives their stride, UPSAMPLING a finer one.
    set_defaults(node, MASK_BRANCH=CfgNode(), MASK_HEAD=CfgNode())
    branch = node.MASK_BRANCH
    set_defaults(branch, IN_FEATURES=["p3", "p4", "p5"], CHANNELS=128, NUM_CONVS=4, NORM="BN")
    set_defaults(branch, OUT_CHANNELS=8, UPSAMPLING=1)
    # The small network of a point.
    set_defaults(node.MASK_HEAD, CHANNELS=8, NUM_LAYERS=3)
    # The stride of the masks; points of a batch at most whose masks training looks at (-1: all).
    set_defaults(node, MASK_OUT_STRIDE=4, MAX_PROPOSALS=500)


def _add_polar_mask_keys(model: CfgNode) -> None:
    """MODEL.POLARMASK."""
    set_defaults(model, POLARMASK=CfgNode())
    node = model.POLARMASK
    _add_point_keys(node)
    set_defaults(node, LOC_LOSS_TYPE="iou", NMS_THRESH_TEST=0.5)
    # Rays of a mask; whether lengths are predicted in strides of the level instead of in pixels.
    set_defaults(node, NUM_RAYS=36, NORM_BY_STRIDE=False)
    # A score is category x (centerness + this) / (1 + this).
    set_defaults(node, CENTERNESS_FACTOR=0.5)
