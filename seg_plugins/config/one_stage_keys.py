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
    _add_adaptis_keys(model)


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


def _add_adaptis_keys(model: CfgNode) -> None:
    """AdaptIS; THING_IDS, COMBINE and LOSS_WEIGHTING are those of MODEL.PANOPTIC_FPN."""
    set_defaults(model, ADAPTIS=CfgNode())
    node = model.ADAPTIS
    # "masks" and then, from its weights, "proposals", with all else frozen: the paper's two stages.
    # "joint": both at once; the proposals' gradient ends at the backbone's feature.
    set_defaults(node, STAGE="joint", IN_FEATURE="p2")
    # Numbers of a point's code; the mask network and the proposal head: separable convolutions as
    # in the paper's Cityscapes models, or the smaller networks of its toy data; the pixels from a
    # point that count as 1 in the relative coordinates.
    set_defaults(node, CODE_SIZE=128, MASK_CHANNELS=128, PROPOSAL_CHANNELS=128)
    set_defaults(node, SEPARABLE_CONVS=True, NORM="BN", NORM_RADIUS=280.0)
    # Points drawn in an image: on any objects for the masks, on one object for the proposals.
    set_defaults(node, NUM_POINTS=6, NUM_PROPOSAL_POINTS=48)
    set_defaults(node, LOSS=CfgNode())
    set_defaults(node.LOSS, FOCAL_ALPHA=0.25, FOCAL_GAMMA=2.0, MASK_WEIGHT=1.0, PROPOSAL_WEIGHT=1.0)
    # Points: least probability of a proposal, and of all things together where it lies; how many
    # at most, the best. Masks: least probability of a pixel; fewest pixels; the share that others
    # may have taken, exclusive.
    set_defaults(node, PROPOSAL_THR=0.5, THING_THR=0.5, MAX_CANDIDATES=100)
    set_defaults(node, MASK_THR=0.5, MIN_AREA=10, MAX_TAKEN=0.4)
