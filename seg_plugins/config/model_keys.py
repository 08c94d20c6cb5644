"""Keys of MODEL: what the systems are made of, and how they predict."""

from __future__ import annotations

from detectron2.config import CfgNode

from .backbone_keys import add_backbone_keys
from .defaults import set_defaults
from .one_stage_keys import add_one_stage_keys


def add_model_keys(model: CfgNode) -> None:
    """Keys of all systems, then those of each kind of system and of its parts."""
    # Keep weights and images in channels-last memory: faster convolutions, same results.
    set_defaults(model, CHANNELS_LAST=False)
    # Compute activations of the backbone's blocks again instead of keeping them: less memory.
    set_defaults(model, ACTIVATION_CHECKPOINTING=False)
    # Backend of torch.compile for backbone and semantic head, e.g. "inductor"; "" = off.
    set_defaults(model, COMPILE="")
    add_backbone_keys(model)
    _add_semantic_head_keys(model.SEM_SEG_HEAD)
    _add_patch_classifier_keys(model)
    _add_inference_keys(model)
    _add_rcnn_keys(model)
    _add_panoptic_keys(model)
    _add_bottom_up_keys(model)
    add_one_stage_keys(model)


def _add_semantic_head_keys(head: CfgNode) -> None:
    """MODEL.SEM_SEG_HEAD of every semantic system."""
    # --- shared with Detectron2's DeepLab project
    set_defaults(
        head,
        # "cross_entropy", DeepLab's "hard_pixel_mining" (top 20% of the valid pixels), "ohem",
        # "focal", "dice", "lovasz", or a sum, with options: "focal(gamma=1.5) + 0.5 * dice".
        LOSS_TYPE="cross_entropy",
        # Low-level features of the decoder.
        PROJECT_FEATURES=["res2"],
        # Channels that each of PROJECT_FEATURES is projected to.
        PROJECT_CHANNELS=[48],
        # Output channels of ASPP.
        ASPP_CHANNELS=256,
        # Atrous rates of ASPP: 6, 12, 18 at output stride 16; double them at 8; they are taken as
        # they stand here.
        ASPP_DILATIONS=[6, 12, 18],
        # Dropout of ASPP.
        ASPP_DROPOUT=0.1,
        # Depthwise separable convolutions in ASPP and decoder.
        USE_DEPTHWISE_SEPARABLE_CONV=False,
    )
    # --- this package's own
    # Separable decoder: 3 is the paper's two 3x3 per step, 5 the DeepLab project's one 5x5.
    set_defaults(head, SEPARABLE_DECODER_KERNEL=3)
    # None (or "none"), "median_frequency" or "inverse" (counted from the training set before the
    # model is built), "published" (released with the dataset), or a list, one factor per class.
    set_defaults(head, CLASS_WEIGHTS=None)
    set_defaults(
        head,
        # FCN: train the upsampling, or keep it bilinear. (COMMON_STRIDE 32, 16 or 8 names the
        # variant of FCN.)
        LEARN_UPSAMPLING=True,
        # FCN: factors of the skip features from fine to coarse, e.g. [0.0001, 0.01] for pool3 and
        # pool4; [] leaves them as they are.
        SKIP_SCALES=[],
    )
    # Networks without padding (U-Net, valid): mirror training images so that every label counts,
    # or train on the part of the crop that the scores cover, as in the paper.
    set_defaults(head, MIRROR_BORDER=True)


def _add_patch_classifier_keys(model: CfgNode) -> None:
    """PatchClassifier, whose backbone and head are fixed."""
    set_defaults(model, PATCH=CfgNode())
    set_defaults(
        model.PATCH,
        # Channels of the convolutions (this and the next two: N4 of the paper).
        CHANNELS=48,
        # Sizes of the convolutions.
        KERNELS=[4, 5, 4, 4],
        # Width of the hidden layer.
        HIDDEN=200,
        # Windows drawn from each training image.
        SAMPLES_PER_IMAGE=256,
        # "dense" or "naive" evaluation: the same scores, all at once or window by window.
        EVALUATION="dense",
    )


def _add_inference_keys(model: CfgNode) -> None:
    """How the semantic systems cover an image at inference."""
    set_defaults(model, INFERENCE=CfgNode())
    set_defaults(
        model.INFERENCE,
        # "whole", "slide" (windows blended) or "overlap_tile" (tiles with mirrored context).
        MODE="whole",
        # Height and width of a window or tile.
        WINDOW=[512, 512],
        # Step of the sliding window along height and width.
        STRIDE=[384, 384],
        # Blend sliding windows by a Gaussian instead of evenly.
        GAUSSIAN=True,
        # Context around a tile for networks that lose no border themselves.
        CONTEXT=0,
        # Test-time augmentation: factors of the image size.
        SCALES=[1.0],
        # Test-time augmentation: mirror images as well.
        FLIP=False,
    )


def _add_rcnn_keys(model: CfgNode) -> None:
    """MaskRCNNC4 and MaskRCNNFPN."""
    # "fused" pools all levels in one operator, "detectron2" by Detectron2's ROIPooler. With "fused"
    # ROI_{BOX,MASK}_HEAD.POOLER_TYPE may be ROIAlignV2, ROIAlign, ROIAlignMax or ROIPool.
    set_defaults(model, ROI_POOLER="fused")
    # pred_masks: "bitmask", (N, H, W) as Detectron2's, or "rle", run lengths of the same pixels.
    set_defaults(model.ROI_MASK_HEAD, OUTPUT_FORMAT="bitmask")


def _add_panoptic_keys(model: CfgNode) -> None:
    """PanopticSegmentor, beside Detectron2's keys of MODEL.PANOPTIC_FPN."""
    set_defaults(
        model.PANOPTIC_FPN,
        # Semantic label of each instance class; [] where label 0 stands for all things
        # (Detectron2's "separated" datasets).
        THING_IDS=[],
        # "fixed" loss weights, or "uncertainty": learned for each task.
        LOSS_WEIGHTING="fixed",
    )


def _add_bottom_up_keys(model: CfgNode) -> None:
    """BottomUpPanopticSegmentor; THING_IDS and LOSS_WEIGHTING are those of PANOPTIC_FPN."""
    set_defaults(model, INS_EMBED_HEAD=CfgNode(), PANOPTIC_DEEPLAB=CfgNode())
    # --- shared with Detectron2's Panoptic-DeepLab project
    set_defaults(
        model.INS_EMBED_HEAD,
        # Features of the decoder for centres and offsets, from fine to coarse.
        IN_FEATURES=["res2", "res3", "res5"],
        # Channels that each but the last is projected to.
        PROJECT_CHANNELS=[32, 64],
        # Output channels of its ASPP.
        ASPP_CHANNELS=256,
        # Atrous rates of its ASPP.
        ASPP_DILATIONS=[6, 12, 18],
        # Dropout of its ASPP.
        ASPP_DROPOUT=0.1,
        # Channels of the decoder.
        CONVS_DIM=128,
        # Norm of its convolutions.
        NORM="SyncBN",
        # Channels before each of the two predictions.
        HEAD_CHANNELS=32,
        # Factor of the loss of the centres.
        CENTER_LOSS_WEIGHT=200.0,
        # Factor of the loss of the offsets.
        OFFSET_LOSS_WEIGHT=0.01,
    )
    set_defaults(
        model.PANOPTIC_DEEPLAB,
        # Least value of a centre.
        CENTER_THRESHOLD=0.1,
        # Side of the window whose maximum a centre is.
        NMS_KERNEL=7,
        # Centres at most, the best ones.
        TOP_K_INSTANCE=200,
        # Stuff of fewer pixels becomes void.
        STUFF_AREA=2048,
    )
    # --- this package's own (the project has them under INPUT)
    set_defaults(
        model.PANOPTIC_DEEPLAB,
        # Sigma of a centre's bump in pixels.
        GAUSSIAN_SIGMA=10.0,
        # Instances of fewer pixels count more in the semantic loss ...
        SMALL_INSTANCE_AREA=4096,
        # ... by this factor.
        SMALL_INSTANCE_WEIGHT=3.0,
    )
