"""Keys of the one-stage systems of instance segmentation; of some of them in point_keys.py.

The number of classes is MODEL.ROI_HEADS.NUM_CLASSES, as of Mask R-CNN; the most instances of an
image TEST.DETECTIONS_PER_IMAGE; the form of the masks MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT.
"""

from __future__ import annotations

from detectron2.config import CfgNode

from .defaults import set_defaults
from .point_keys import add_adaptis_keys, add_cond_inst_keys, add_polar_mask_keys


def add_one_stage_keys(model: CfgNode) -> None:
    """MODEL.ONE_STAGE, and a node for each representation."""
    set_defaults(model, ONE_STAGE=CfgNode())
    # An instance representation, for META_ARCHITECTURE OneStageInstanceSegmentor and for
    # PanopticSegmentor in Mask R-CNN's place. The systems that are named after one need no key.
    set_defaults(model.ONE_STAGE, REPRESENTATION="")
    _add_solo_keys(model)
    _add_yolact_keys(model)
    _add_instance_fcn_keys(model)
    add_cond_inst_keys(model)
    add_polar_mask_keys(model)
    add_adaptis_keys(model)


def _add_solo_keys(model: CfgNode) -> None:
    """MODEL.SOLO and MODEL.SOLOV2; names as in AdelaiDet's SOLOv2."""
    set_defaults(model, SOLO=CfgNode(), SOLOV2=CfgNode())
    for node in (model.SOLO, model.SOLOV2):
        set_defaults(
            node,
            # Features that a level each is made from; the next three keys have an entry for each.
            INSTANCE_IN_FEATURES=["p2", "p3", "p4", "p5", "p6"],
            # Cells of a level's grid along a side.
            NUM_GRIDS=[40, 36, 24, 16, 12],
            # Objects that a level gets: the root of their box's area in pixels, from and to.
            FPN_SCALE_RANGES=[[1, 96], [48, 192], [96, 384], [192, 768], [384, 2048]],
            # A mask of a level has more cells than this, of those that it is predicted in.
            FPN_INSTANCE_STRIDES=[8, 8, 16, 32, 32],
            # The cells of an object lie in its box shrunk to this share.
            SIGMA=0.2,
            # Norm of the towers' convolutions, "" for none.
            NORM="GN",
            # Probability of each category that an untrained network gives.
            PRIOR_PROB=0.01,
            LOSS=CfgNode(),
        )
        set_defaults(
            node.LOSS,
            # Factor of the focal loss of the categories.
            FOCAL_WEIGHT=1.0,
            # Factor of the Dice loss of the masks.
            DICE_WEIGHT=3.0,
        )
        set_defaults(
            node,
            # Least score of a category before suppression.
            SCORE_THR=0.1,
            # Masks at most that go into suppression, the best ones.
            NMS_PRE=500,
            # Suppression: "matrix" lowers scores, "mask" takes masks away.
            NMS_TYPE="matrix",
            # How "matrix" lowers a score with growing overlap: "gaussian" or "linear".
            NMS_KERNEL="gaussian",
            # Sigma of the kernel "gaussian".
            NMS_SIGMA=2.0,
            # Least score after suppression.
            UPDATE_THR=0.05,
            # Least probability of a pixel of a mask.
            MASK_THR=0.5,
        )
    for node, channels, convs, upsampling in ((model.SOLO, 256, 7, 2), (model.SOLOV2, 512, 4, 1)):
        set_defaults(
            node,
            # Channels of the towers.
            INSTANCE_CHANNELS=channels,
            # Convolutions of a tower.
            NUM_INSTANCE_CONVS=convs,
            # Masks are so many times finer than the maps they are predicted from.
            MASK_UPSAMPLING=upsampling,
        )
    set_defaults(
        model.SOLOV2,
        # Levels that the mask features are made from.
        MASK_IN_FEATURES=["p2", "p3", "p4", "p5"],
        # Channels of the convolutions that make them.
        MASK_CHANNELS=128,
        # Channels of the mask features: the numbers of a kernel.
        NUM_KERNELS=256,
    )


def _add_yolact_keys(model: CfgNode) -> None:
    """MODEL.YOLACT."""
    set_defaults(model, YOLACT=CfgNode())
    node = model.YOLACT
    set_defaults(
        node,
        # Levels with anchors.
        IN_FEATURES=["p3", "p4", "p5", "p6", "p7"],
        # Level that prototypes and, in training, the semantic branch are made from.
        PROTO_FEATURE="p3",
        # Sizes of the anchors of each level (YOLACT++: three each), in pixels of the network's
        # input.
        ANCHOR_SIZES=[[24], [48], [96], [192], [384]],
        # An anchor's height is its width, as in the published weights.
        SQUARE_ANCHORS=True,
        # Width by height of a level's anchors.
        ASPECT_RATIOS=[1.0, 0.5, 2.0],
        # Unless 0, ANCHOR_SIZES are meant for images whose longer side, padded, has so many
        # pixels, and grow with the image.
        ANCHOR_IMAGE_SIZE=0,
        # Channels of the convolution that all three predictions share.
        HEAD_CHANNELS=256,
        # Number of prototypes.
        PROTOTYPES=32,
        # Channels of the convolutions that make prototypes.
        PROTO_CHANNELS=256,
        # Number of these convolutions.
        NUM_PROTO_CONVS=3,
        # How many times finer than PROTO_FEATURE prototypes are.
        PROTO_UPSAMPLING=2,
        # Norm of all convolutions of the head, "" (none) in the paper.
        NORM="",
        # Least IoU of an anchor with its object.
        POSITIVE_IOU=0.5,
        # An anchor has no object if its IoU with each is below this; others are left out.
        NEGATIVE_IOU=0.4,
        # Anchors without an object in the loss, for each one with an object.
        NEGATIVE_RATIO=3,
        # Masks of an image that have a loss, drawn at random from its anchors with an object.
        MASKS_TO_TRAIN=100,
        LOSS=CfgNode(),
    )
    set_defaults(
        node.LOSS,
        # Factor of the loss of the classes.
        CLASS_WEIGHT=1.0,
        # Factor of the loss of the boxes.
        BOX_WEIGHT=1.5,
        # Factor of the loss of the masks.
        MASK_WEIGHT=6.125,
        # Factor of the loss of the semantic branch.
        SEMANTIC_WEIGHT=1.0,
    )
    set_defaults(
        node,
        # An anchor counts if its best score is above this.
        SCORE_THR=0.05,
        # It counts with all its classes whose score is above this.
        CLASS_SCORE_THR=0.0,
        # Fast NMS looks at so many of a class, the best ones.
        NMS_TOP_K=200,
        # IoU of boxes above which the worse one goes.
        NMS_THR=0.5,
        # Least probability of a pixel of a mask.
        MASK_THR=0.5,
    )


def _add_instance_fcn_keys(model: CfgNode) -> None:
    """MODEL.INSTANCE_FCN."""
    set_defaults(model, INSTANCE_FCN=CfgNode())
    node = model.INSTANCE_FCN
    set_defaults(
        node,
        # One feature, as in the paper (VGG: conv5), or levels of a pyramid with equal channels,
        # which share the branches: then windows of several sizes are looked at in one image.
        IN_FEATURES=["conv5"],
        # Channels of the branches.
        CHANNELS=512,
        # Norm of the branches' convolutions, "" for none.
        NORM="",
        # Cells along the side of a window.
        WINDOW=21,
        # Parts of a window along its side: PARTS * PARTS score maps.
        PARTS=5,
        # One score, "is an object" (the paper), or one for each class, which AP needs.
        CLASS_AGNOSTIC=False,
        # A window belongs to an object whose box's centre is at most so many sides of the window
        # from its own along x and y (DeepMask: 16 of 224 pixels) ...
        POSITIVE_OFFSET=16 / 224,
        # ... and whose longer side is in this range, in sides of the window (DeepMask: 128 of 224
        # pixels times 2^(+-1/4)).
        POSITIVE_SIZES=[0.4805, 0.6796],
        # A window has no object if each is farther than this or outside NEGATIVE_SIZES (DeepMask:
        # 32 of 224 pixels). Other windows are left out.
        NEGATIVE_OFFSET=32 / 224,
        # See NEGATIVE_OFFSET (DeepMask: 128 of 224 pixels times 2^(+-1)).
        NEGATIVE_SIZES=[0.2857, 1.1429],
        # Windows of an image that have a loss.
        WINDOWS_PER_IMAGE=256,
        # Largest share of them with an object.
        POSITIVE_FRACTION=0.5,
        LOSS=CfgNode(),
    )
    set_defaults(
        node.LOSS,
        # Factor of the loss of the scores.
        SCORE_WEIGHT=1.0,
        # Factor of the loss of the masks.
        MASK_WEIGHT=1.0,
    )
    set_defaults(
        node,
        # Scales of the image at inference, joined before suppression (the paper: 600 pixels times
        # 1.5^-4 ... 1.5^1).
        TEST_SCALES=[1.0],
        # Least score of a window.
        SCORE_THR=0.05,
        # Windows at most that go into suppression, the best ones.
        NMS_PRE=1000,
        # IoU of the masks' boxes above which the worse goes (AP wants less than the .8 of the
        # paper, which proposes objects).
        NMS_THR=0.8,
        # Least probability of a pixel of a mask.
        MASK_THR=0.5,
    )
