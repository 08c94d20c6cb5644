"""Keys of MODEL: what the systems are made of, and how they predict."""

from __future__ import annotations

from detectron2.config import CfgNode

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
    _add_backbone_keys(model)
    _add_semantic_head_keys(model.SEM_SEG_HEAD)
    _add_patch_classifier_keys(model)
    _add_inference_keys(model)
    _add_rcnn_keys(model)
    _add_panoptic_keys(model)
    _add_bottom_up_keys(model)
    add_one_stage_keys(model)


def _add_backbone_keys(model: CfgNode) -> None:
    """Backbones, and what U-Net's and SegNet's decoders share with them."""
    # --- shared with Detectron2's DeepLab project
    # Dilation of res4 (2 gives output stride 8) and the rates of the three res5 blocks.
    set_defaults(model.RESNETS, RES4_DILATION=1, RES5_MULTI_GRID=[1, 2, 4], STEM_TYPE="deeplab")
    # --- build_timm_backbone, build_timm_fpn_backbone (MODEL.BACKBONE.FREEZE_AT counts too)
    set_defaults(model, TIMM=CfgNode())
    # A name of timm.list_models(), and whether to fetch timm's weights of that name when the model
    # is built (not where MODEL.WEIGHTS replaces them). MODEL.WEIGHTS timm://NAME fetches them when
    # weights are loaded: then a model can be built without a network.
    set_defaults(model.TIMM, NAME="resnet50", PRETRAINED=False)
    # 32, 16 or 8: strides beyond it become dilations.
    set_defaults(model.TIMM, OUTPUT_STRIDE=32)
    # res{n} has stride 2^n before dilation; e.g. ["res2", "res5"] suffice for DeepLabv3+.
    set_defaults(model.TIMM, OUT_FEATURES=["res2", "res3", "res4", "res5"])
    # "" keeps the model's own batch norms; "FrozenBN", "SyncBN" or "GN" replace them.
    set_defaults(model.TIMM, NORM="")
    # --- build_timm_fpn_backbone, build_vgg_fpn_backbone, build_resnet_extended_fpn_backbone
    # Levels above the last: one by "pool" or two by convolutions, "p6p7" (FCOS) or, without a ReLU
    # between them, "p6p7_linear" (YOLACT); "nearest" or "bilinear" from a level to the one below
    # it; a ReLU behind every level but those above the last (YOLACT).
    set_defaults(model.FPN, TOP_BLOCK="pool", UPSAMPLING="nearest", RELU=False)
    # --- build_vgg_backbone
    set_defaults(model, VGG=CfgNode())
    # 11, 13, 16 or 19; "" or "BN"; channels of the first stage and of fc6 and fc7; dropout there.
    set_defaults(model.VGG, DEPTH=16, NORM="", WIDTH=64, FC_CHANNELS=4096, DROPOUT=0.5)
    # pool1 ... pool4, conv5, pool5, fc7; pool4 with stride 1 and conv5 with dilation 2, so that
    # conv5 has stride 8 (InstanceFCN).
    set_defaults(model.VGG, OUT_FEATURES=["pool5"], DILATE_CONV5=False)
    # Padding of the first convolution (FCN: 100), and whether to hand on pooling indices (SegNet).
    set_defaults(model.VGG, INPUT_PAD=1, POOLING_INDICES=False)
    # --- build_unet_backbone and SemSegUNetHead
    set_defaults(model, UNET=CfgNode())
    # Levels, channels of the first one, "valid" or "same" padding, "" or a norm's name, dropout
    # after the two deepest levels.
    set_defaults(model.UNET, DEPTH=5, WIDTH=64, PADDING="valid", NORM="", DROPOUT=0.5)
    # "transposed" or "bilinear"; channels of the decoder's steps from fine to coarse, or [] for
    # those of the encoder.
    set_defaults(model.UNET, UPSAMPLING="transposed", DECODER_CHANNELS=[])
    # --- SemSegSegNetHead and build_segnet_basic_backbone
    set_defaults(model, SEGNET=CfgNode())
    # Decoder convolutions per stage from fine to coarse (those of VGG-16), their size, ReLU after
    # them, and a 1x1 classifier on top; SegNet-Basic: [1, 1, 1, 1], 7, False, True.
    set_defaults(model.SEGNET, CONVS=[2, 2, 3, 3, 3], KERNEL=3, DECODER_RELU=True)
    set_defaults(model.SEGNET, EXTRA_CLASSIFIER=False, BASIC_WIDTH=64)


def _add_semantic_head_keys(head: CfgNode) -> None:
    """MODEL.SEM_SEG_HEAD of every semantic system."""
    # --- shared with Detectron2's DeepLab project
    # "cross_entropy", DeepLab's "hard_pixel_mining" (top 20% of the valid pixels), "ohem", "focal",
    # "dice", "lovasz", or a sum, with options: "focal(gamma=1.5) + 0.5 * dice".
    set_defaults(head, LOSS_TYPE="cross_entropy")
    # Decoder: low-level features and the channels each is projected to.
    set_defaults(head, PROJECT_FEATURES=["res2"], PROJECT_CHANNELS=[48])
    # ASPP: output channels, atrous rates (6, 12, 18 at output stride 16; double them at 8; they
    # are taken as they stand here) and dropout.
    set_defaults(head, ASPP_CHANNELS=256, ASPP_DILATIONS=[6, 12, 18], ASPP_DROPOUT=0.1)
    # Depthwise separable convolutions in ASPP and decoder.
    set_defaults(head, USE_DEPTHWISE_SEPARABLE_CONV=False)
    # --- this package's own
    # Separable decoder: 3 is the paper's two 3x3 per step, 5 the DeepLab project's one 5x5.
    set_defaults(head, SEPARABLE_DECODER_KERNEL=3)
    # None (or "none"), "median_frequency" or "inverse" (counted from the training set before the
    # model is built), "published" (released with the dataset), or a list, one factor per class.
    set_defaults(head, CLASS_WEIGHTS=None)
    # FCN (COMMON_STRIDE 32, 16 or 8 names the variant): train the upsampling or keep it bilinear;
    # factors of the skip features from fine to coarse, e.g. [0.0001, 0.01] for pool3 and pool4.
    set_defaults(head, LEARN_UPSAMPLING=True, SKIP_SCALES=[])
    # Networks without padding (U-Net, valid): mirror training images so that every label counts,
    # or train on the part of the crop that the scores cover, as in the paper.
    set_defaults(head, MIRROR_BORDER=True)


def _add_patch_classifier_keys(model: CfgNode) -> None:
    """PatchClassifier, whose backbone and head are fixed."""
    set_defaults(model, PATCH=CfgNode())
    # Channels and sizes of the convolutions, width of the hidden layer (N4 of the paper).
    set_defaults(model.PATCH, CHANNELS=48, KERNELS=[4, 5, 4, 4], HIDDEN=200)
    # Windows drawn from each training image; "dense" or "naive" evaluation.
    set_defaults(model.PATCH, SAMPLES_PER_IMAGE=256, EVALUATION="dense")


def _add_inference_keys(model: CfgNode) -> None:
    """How the semantic systems cover an image at inference."""
    set_defaults(model, INFERENCE=CfgNode())
    # "whole", "slide" (windows blended) or "overlap_tile" (tiles with mirrored context).
    set_defaults(model.INFERENCE, MODE="whole")
    # Height and width of a window or tile, step of the sliding window, Gaussian blending, and
    # context around a tile for networks that lose no border themselves.
    set_defaults(model.INFERENCE, WINDOW=[512, 512], STRIDE=[384, 384], GAUSSIAN=True, CONTEXT=0)
    # Test-time augmentation: factors of the image size, and mirror images.
    set_defaults(model.INFERENCE, SCALES=[1.0], FLIP=False)


def _add_rcnn_keys(model: CfgNode) -> None:
    """MaskRCNNC4 and MaskRCNNFPN."""
    # "fused" pools all levels in one operator, "detectron2" by Detectron2's ROIPooler. With "fused"
    # ROI_{BOX,MASK}_HEAD.POOLER_TYPE may be ROIAlignV2, ROIAlign, ROIAlignMax or ROIPool.
    set_defaults(model, ROI_POOLER="fused")
    # pred_masks: "bitmask", (N, H, W) as Detectron2's, or "rle", run lengths of the same pixels.
    set_defaults(model.ROI_MASK_HEAD, OUTPUT_FORMAT="bitmask")


def _add_panoptic_keys(model: CfgNode) -> None:
    """PanopticSegmentor, beside Detectron2's keys of MODEL.PANOPTIC_FPN."""
    # Semantic label of each instance class; [] where label 0 stands for all things (Detectron2's
    # "separated" datasets). "fixed" loss weights, or "uncertainty": learned for each task.
    set_defaults(model.PANOPTIC_FPN, THING_IDS=[], LOSS_WEIGHTING="fixed")


def _add_bottom_up_keys(model: CfgNode) -> None:
    """BottomUpPanopticSegmentor; THING_IDS and LOSS_WEIGHTING are those of PANOPTIC_FPN."""
    set_defaults(model, INS_EMBED_HEAD=CfgNode(), PANOPTIC_DEEPLAB=CfgNode())
    # --- shared with Detectron2's Panoptic-DeepLab project
    # The decoder for centres and offsets: keys as those of SEM_SEG_HEAD.
    head = model.INS_EMBED_HEAD
    set_defaults(head, IN_FEATURES=["res2", "res3", "res5"], PROJECT_CHANNELS=[32, 64])
    set_defaults(head, ASPP_CHANNELS=256, ASPP_DILATIONS=[6, 12, 18], ASPP_DROPOUT=0.1)
    set_defaults(head, CONVS_DIM=128, NORM="SyncBN")
    # Channels before each of the two predictions, and the factors of their losses.
    set_defaults(head, HEAD_CHANNELS=32, CENTER_LOSS_WEIGHT=200.0, OFFSET_LOSS_WEIGHT=0.01)
    # Centres: least value, side of the window whose maximum they are, and how many at most. Stuff
    # of fewer pixels than STUFF_AREA becomes void.
    set_defaults(model.PANOPTIC_DEEPLAB, CENTER_THRESHOLD=0.1, NMS_KERNEL=7, TOP_K_INSTANCE=200)
    set_defaults(model.PANOPTIC_DEEPLAB, STUFF_AREA=2048)
    # --- this package's own (the project has them under INPUT)
    # Sigma of a centre's bump in pixels; factor of the semantic loss in instances of fewer pixels.
    set_defaults(model.PANOPTIC_DEEPLAB, GAUSSIAN_SIGMA=10.0)
    set_defaults(model.PANOPTIC_DEEPLAB, SMALL_INSTANCE_AREA=4096, SMALL_INSTANCE_WEIGHT=3.0)
