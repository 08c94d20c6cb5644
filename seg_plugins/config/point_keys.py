"""Keys of the one-stage systems whose masks belong to a point: CondInst, PolarMask, AdaptIS."""

from __future__ import annotations

from detectron2.config import CfgNode

from .defaults import set_defaults


def _add_point_keys(node: CfgNode) -> None:
    """What CondInst and PolarMask share; names as in AdelaiDet's FCOS."""
    set_defaults(
        node,
        # Levels whose points have objects.
        IN_FEATURES=["p3", "p4", "p5", "p6", "p7"],
        # Borders between the levels, in pixels: an object belongs to one by the longest distance
        # from a point to a side of its box.
        SIZES_OF_INTEREST=[64, 128, 256, 512],
        # The points of an object are nearer to its centre of mass than so many strides.
        POS_RADIUS=1.5,
        # Channels of the towers.
        CHANNELS=256,
        # Convolutions of a tower.
        NUM_CONVS=4,
        # Norm of the towers' convolutions, "" for none.
        NORM="GN",
        # Probability of each category that an untrained network gives.
        PRIOR_PROB=0.01,
        # Least score of a find.
        SCORE_THRESH_TEST=0.05,
        # Finds of a level at most that go into suppression, the best ones.
        PRE_NMS_TOPK_TEST=1000,
    )


def add_cond_inst_keys(model: CfgNode) -> None:
    """MODEL.CONDINST; names as in AdelaiDet."""
    set_defaults(model, CONDINST=CfgNode())
    node = model.CONDINST
    _add_point_keys(node)
    set_defaults(
        node,
        # Loss of the boxes: "giou" or "iou".
        LOC_LOSS_TYPE="giou",
        # IoU of boxes above which the worse one goes.
        NMS_THRESH_TEST=0.6,
        MASK_BRANCH=CfgNode(),
        MASK_HEAD=CfgNode(),
    )
    set_defaults(
        node.MASK_BRANCH,
        # Levels that the maps which all masks share are made from; the first gives their stride.
        IN_FEATURES=["p3", "p4", "p5"],
        # Channels of the convolutions that make them.
        CHANNELS=128,
        # Number of these convolutions.
        NUM_CONVS=4,
        # Norm of these convolutions, "" for none.
        NORM="BN",
        # Number of the maps.
        OUT_CHANNELS=8,
        # How many times finer than the first level they are.
        UPSAMPLING=1,
    )
    set_defaults(
        node.MASK_HEAD,
        # Channels of the small network of a point.
        CHANNELS=8,
        # Its layers.
        NUM_LAYERS=3,
    )
    set_defaults(
        node,
        # Stride of the masks.
        MASK_OUT_STRIDE=4,
        # Points of a batch at most whose masks training looks at; -1: all.
        MAX_PROPOSALS=500,
    )


def add_polar_mask_keys(model: CfgNode) -> None:
    """MODEL.POLARMASK."""
    set_defaults(model, POLARMASK=CfgNode())
    node = model.POLARMASK
    _add_point_keys(node)
    set_defaults(
        node,
        # Loss of the boxes: "giou" or "iou".
        LOC_LOSS_TYPE="iou",
        # IoU of boxes above which the worse one goes.
        NMS_THRESH_TEST=0.5,
        # Rays of a mask.
        NUM_RAYS=36,
        # Lengths are predicted in strides of the level instead of in pixels.
        NORM_BY_STRIDE=False,
        # A score is category x (centerness + this) / (1 + this).
        CENTERNESS_FACTOR=0.5,
    )


def add_adaptis_keys(model: CfgNode) -> None:
    """AdaptIS; THING_IDS, COMBINE and LOSS_WEIGHTING are those of MODEL.PANOPTIC_FPN."""
    set_defaults(model, ADAPTIS=CfgNode())
    node = model.ADAPTIS
    set_defaults(
        node,
        # "masks" and then, from its weights, "proposals", with all else frozen: the paper's two
        # stages. "joint": both at once; the proposals' gradient ends at the backbone's feature.
        STAGE="joint",
        # Feature of the backbone that all predictions are made from.
        IN_FEATURE="p2",
        # Numbers of a point's code.
        CODE_SIZE=128,
        # Channels of the mask network.
        MASK_CHANNELS=128,
        # Channels of the proposal head.
        PROPOSAL_CHANNELS=128,
        # Mask network and proposal head of separable convolutions, as in the paper's Cityscapes
        # models, or the smaller networks of its toy data.
        SEPARABLE_CONVS=True,
        # Norm of their convolutions, "" for none.
        NORM="BN",
        # Pixels from a point that count as 1 in the relative coordinates.
        NORM_RADIUS=280.0,
        # Points drawn on any objects of an image, for the masks.
        NUM_POINTS=6,
        # Points drawn on one object of an image, for the proposals.
        NUM_PROPOSAL_POINTS=48,
        LOSS=CfgNode(),
    )
    set_defaults(
        node.LOSS,
        # Weight of mask pixels against the others in the focal loss.
        FOCAL_ALPHA=0.25,
        # Exponent of the focal loss.
        FOCAL_GAMMA=2.0,
        # Factor of the loss of the masks.
        MASK_WEIGHT=1.0,
        # Factor of the loss of the proposals.
        PROPOSAL_WEIGHT=1.0,
    )
    set_defaults(
        node,
        # Least probability of a proposal.
        PROPOSAL_THR=0.5,
        # Least probability of all things together where a proposal lies.
        THING_THR=0.5,
        # Points at most, the best ones.
        MAX_CANDIDATES=100,
        # Least probability of a pixel of a mask.
        MASK_THR=0.5,
        # Fewest pixels of a mask.
        MIN_AREA=10,
        # Largest share of a mask that others may have taken, exclusive.
        MAX_TAKEN=0.4,
    )
