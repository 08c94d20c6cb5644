"""Keys of MODEL for backbones, and for what the decoders of U-Net and SegNet share with them."""

from __future__ import annotations

from detectron2.config import CfgNode

from .defaults import set_defaults


def add_backbone_keys(model: CfgNode) -> None:
    """A node for each kind of backbone."""
    # --- shared with Detectron2's DeepLab project
    set_defaults(
        model.RESNETS,
        # Dilation of res4; 2 gives output stride 8.
        RES4_DILATION=1,
        # Rates of the three blocks of res5.
        RES5_MULTI_GRID=[1, 2, 4],
        # "deeplab" (three 3x3 convolutions) or "basic", of build_resnet_deeplab_backbone.
        STEM_TYPE="deeplab",
    )
    # --- this package's own
    _add_timm_keys(model)
    set_defaults(
        model.FPN,
        # Levels above the last: one by "pool" or two by convolutions, "p6p7" (FCOS) or, without a
        # ReLU between them, "p6p7_linear" (YOLACT). This and the two below are for
        # build_timm_fpn_backbone, build_vgg_fpn_backbone and build_resnet_extended_fpn_backbone.
        TOP_BLOCK="pool",
        # "nearest" or "bilinear" from a level to the one below it.
        UPSAMPLING="nearest",
        # A ReLU behind every level but those above the last (YOLACT).
        RELU=False,
    )
    _add_vgg_keys(model)
    _add_unet_keys(model)
    _add_segnet_keys(model)


def _add_timm_keys(model: CfgNode) -> None:
    """build_timm_backbone, build_timm_fpn_backbone (MODEL.BACKBONE.FREEZE_AT counts too)."""
    set_defaults(model, TIMM=CfgNode())
    set_defaults(
        model.TIMM,
        # A name of timm.list_models().
        NAME="resnet50",
        # Fetch timm's weights of that name when the model is built (not where MODEL.WEIGHTS
        # replaces them). MODEL.WEIGHTS timm://NAME fetches them when weights are loaded: then a
        # model can be built without a network.
        PRETRAINED=False,
        # 32, 16 or 8: strides beyond it become dilations.
        OUTPUT_STRIDE=32,
        # res{n} has stride 2^n before dilation; e.g. ["res2", "res5"] suffice for DeepLabv3+.
        OUT_FEATURES=["res2", "res3", "res4", "res5"],
        # "" keeps the model's own batch norms; "FrozenBN", "SyncBN" or "GN" replace them.
        NORM="",
    )


def _add_vgg_keys(model: CfgNode) -> None:
    """build_vgg_backbone."""
    set_defaults(model, VGG=CfgNode())
    set_defaults(
        model.VGG,
        # 11, 13, 16 or 19.
        DEPTH=16,
        # "" or "BN".
        NORM="",
        # Channels of the first stage.
        WIDTH=64,
        # Channels of fc6 and fc7.
        FC_CHANNELS=4096,
        # Dropout of fc6 and fc7.
        DROPOUT=0.5,
        # pool1 ... pool4, conv5, pool5, fc7.
        OUT_FEATURES=["pool5"],
        # pool4 with stride 1 and conv5 with dilation 2, so that conv5 has stride 8 (InstanceFCN).
        DILATE_CONV5=False,
        # Padding of the first convolution (FCN: 100).
        INPUT_PAD=1,
        # Hand on the indices of pooling (SegNet).
        POOLING_INDICES=False,
    )


def _add_unet_keys(model: CfgNode) -> None:
    """build_unet_backbone and SemSegUNetHead."""
    set_defaults(model, UNET=CfgNode())
    set_defaults(
        model.UNET,
        # Number of levels.
        DEPTH=5,
        # Channels of the first level.
        WIDTH=64,
        # Padding of the convolutions: "valid" (none, as in the paper) or "same".
        PADDING="valid",
        # "" or a norm's name.
        NORM="",
        # Dropout after the two deepest levels.
        DROPOUT=0.5,
        # From a level to the one above it: "transposed" convolution or "bilinear".
        UPSAMPLING="transposed",
        # Channels of the decoder's steps from fine to coarse, or [] for those of the encoder.
        DECODER_CHANNELS=[],
    )


def _add_segnet_keys(model: CfgNode) -> None:
    """SemSegSegNetHead and build_segnet_basic_backbone."""
    set_defaults(model, SEGNET=CfgNode())
    set_defaults(
        model.SEGNET,
        # Decoder convolutions per stage from fine to coarse: those of VGG-16; SegNet-Basic:
        # [1, 1, 1, 1].
        CONVS=[2, 2, 3, 3, 3],
        # Their size; SegNet-Basic: 7.
        KERNEL=3,
        # A ReLU after them; SegNet-Basic: False.
        DECODER_RELU=True,
        # A 1x1 classifier on top; SegNet-Basic: True.
        EXTRA_CLASSIFIER=False,
        # Channels of build_segnet_basic_backbone.
        BASIC_WIDTH=64,
    )
