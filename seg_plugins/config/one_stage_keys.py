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
    _add_yolact_keys(model)
    _add_instance_fcn_keys(model)
    _add_cond_inst_keys(model)
    _add_polar_mask_keys(model)
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


def _add_yolact_keys(model: CfgNode) -> None:
    """MODEL.YOLACT."""
    set_defaults(model, YOLACT=CfgNode())
    node = model.YOLACT
    # The levels with anchors, and the one that prototypes and, in training, the semantic branch
    # are made from.
    set_defaults(node, IN_FEATURES=["p3", "p4", "p5", "p6", "p7"], PROTO_FEATURE="p3")
    # Sizes for each level (YOLACT++: three each), width by height, and the height of the width, as
    # in the published weights. Sizes are pixels of the network's input; with ANCHOR_IMAGE_SIZE
    # they are meant for images whose longer side, padded, has so many, and grow with the image.
    set_defaults(node, ANCHOR_SIZES=[[24], [48], [96], [192], [384]], SQUARE_ANCHORS=True)
    set_defaults(node, ASPECT_RATIOS=[1.0, 0.5, 2.0], ANCHOR_IMAGE_SIZE=0)
    # The convolution that all three predictions share; prototypes, their convolutions, and how
    # many times finer than their level they are; norm of all these convolutions, "" in the paper.
    set_defaults(node, HEAD_CHANNELS=256, PROTOTYPES=32, PROTO_CHANNELS=256, NUM_PROTO_CONVS=3)
    set_defaults(node, PROTO_UPSAMPLING=2, NORM="")
    # Least IoU of an anchor with its object, IoU below which it has none; negatives by positive.
    set_defaults(node, POSITIVE_IOU=0.5, NEGATIVE_IOU=0.4, NEGATIVE_RATIO=3)
    # Masks of an image that have a loss, drawn at random from its anchors with an object.
    set_defaults(node, MASKS_TO_TRAIN=100, LOSS=CfgNode())
    set_defaults(node.LOSS, CLASS_WEIGHT=1.0, BOX_WEIGHT=1.5, MASK_WEIGHT=6.125)
    set_defaults(node.LOSS, SEMANTIC_WEIGHT=1.0)
    # An anchor counts if its best score is above SCORE_THR, then with all its classes whose score
    # is above CLASS_SCORE_THR; Fast NMS among the NMS_TOP_K best of a class; least probability of
    # a pixel.
    set_defaults(node, SCORE_THR=0.05, CLASS_SCORE_THR=0.0, NMS_TOP_K=200, NMS_THR=0.5)
    set_defaults(node, MASK_THR=0.5)


def _add_instance_fcn_keys(model: CfgNode) -> None:
    """MODEL.INSTANCE_FCN."""
    set_defaults(model, INSTANCE_FCN=CfgNode())
    node = model.INSTANCE_FCN
    # One feature, as in the paper (VGG: conv5), or levels of a pyramid with equal channels, which
    # share the branches: then windows of several sizes are looked at in one image.
    set_defaults(node, IN_FEATURES=["conv5"], CHANNELS=512, NORM="")
    # Cells along the side of a window, and parts along its side: PARTS * PARTS score maps.
    set_defaults(node, WINDOW=21, PARTS=5)
    # One score, "is an object" (the paper), or one for each class, which AP needs.
    set_defaults(node, CLASS_AGNOSTIC=False)
    # In sides of the window: a window belongs to an object whose box's centre is at most
    # POSITIVE_OFFSET from its own along x and y and whose longer side is in POSITIVE_SIZES. It has
    # none if every object is farther than NEGATIVE_OFFSET or outside NEGATIVE_SIZES. Other windows
    # are left out. (DeepMask: of 224 pixels 16 and 128 times 2^(+-1/4), 32 and 128 times 2^(+-1).)
    set_defaults(node, POSITIVE_OFFSET=16 / 224, POSITIVE_SIZES=[0.4805, 0.6796])
    set_defaults(node, NEGATIVE_OFFSET=32 / 224, NEGATIVE_SIZES=[0.2857, 1.1429])
    # Windows of an image that have a loss; at most so many of them with an object.
    set_defaults(node, WINDOWS_PER_IMAGE=256, POSITIVE_FRACTION=0.5, LOSS=CfgNode())
    set_defaults(node.LOSS, SCORE_WEIGHT=1.0, MASK_WEIGHT=1.0)
    # The image's scales at inference, joined before suppression (the paper: 600 pixels times
    # 1.5^-4 ... 1.5^1). Least score; then at most so many windows; IoU of the masks' boxes above
    # which the worse goes (AP wants less than the .8 of the paper, which proposes objects); least
    # probability of a pixel.
    set_defaults(node, TEST_SCALES=[1.0], SCORE_THR=0.05, NMS_PRE=1000, NMS_THR=0.8, MASK_THR=0.5)


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
