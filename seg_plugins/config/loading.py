"""Configuration: every key this package adds to Detectron2's, and safe loading of YAML files."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode
from detectron2.config import get_cfg as _detectron2_get_cfg


class ConfigError(ValueError):
    """A configuration file, key or value is wrong; the message names it and the fix."""


# --------------------------------------------------------------------------------------- keys


def add_seg_config(cfg: CfgNode) -> None:
    """Add this package's keys with their defaults; calling it twice changes nothing.

    Keys of Detectron2's DeepLab project keep their names and meanings, so that both
    ``add_deeplab_config`` and this function may be called, in either order.
    """
    _add_semantic_head_keys(cfg.MODEL.SEM_SEG_HEAD)
    _add_model_keys(cfg.MODEL)
    _add_input_keys(cfg.INPUT)
    _add_dataset_keys(cfg.DATASETS)
    _add_solver_keys(cfg.SOLVER)
    _add_test_keys(cfg.TEST)
    _add_run_keys(cfg)


def _add_run_keys(cfg: CfgNode) -> None:
    # Iterations between two lines of the log, metrics.json and TensorBoard.
    _defaults(cfg, LOG_PERIOD=20)
    # Deterministic kernels where PyTorch has them; it warns by name where it has none.
    _defaults(cfg, DETERMINISTIC=False)
    # Moving average of the weights, which evaluation and model_best use.
    _defaults(cfg, MODEL_EMA=CfgNode({"ENABLED": False, "DECAY": 0.999}))
    # Weights & Biases beside TensorBoard and metrics.json; "" = off. ID continues a run there.
    _defaults(cfg, WANDB=CfgNode({"PROJECT": "", "NAME": "", "ID": ""}))
    # Share of the training set that may be damaged: such samples are replaced by others and
    # named in the log. 0: a damaged sample is an error.
    _defaults(cfg.DATALOADER, MAX_DAMAGED=0.0)


def _defaults(node: CfgNode, **keys: Any) -> None:
    """Set keys that are not there yet."""
    for key, value in keys.items():
        node.setdefault(key, value)


def _add_semantic_head_keys(head: CfgNode) -> None:
    # --- shared with Detectron2's DeepLab project
    # "cross_entropy", DeepLab's "hard_pixel_mining" (top 20% of the valid pixels), "ohem", "focal",
    # "dice", "lovasz", or a sum: "cross_entropy + 0.5 * dice".
    _defaults(head, LOSS_TYPE="cross_entropy")
    # Decoder: low-level features and the channels each is projected to.
    _defaults(head, PROJECT_FEATURES=["res2"], PROJECT_CHANNELS=[48])
    # ASPP: output channels, atrous rates (6, 12, 18 at output stride 16; double them at 8; they
    # are taken as they stand here) and dropout.
    _defaults(head, ASPP_CHANNELS=256, ASPP_DILATIONS=[6, 12, 18], ASPP_DROPOUT=0.1)
    # Depthwise separable convolutions in ASPP and decoder.
    _defaults(head, USE_DEPTHWISE_SEPARABLE_CONV=False)
    # --- this package's own
    # Separable decoder: 3 is the paper's two 3x3 per step, 5 the DeepLab project's one 5x5.
    _defaults(head, SEPARABLE_DECODER_KERNEL=3)
    # None (or "none"), "median_frequency" or "inverse" (counted from the training set before the
    # model is built), "published" (released with the dataset), or a list, one factor per class.
    _defaults(head, CLASS_WEIGHTS=None)
    # FCN (COMMON_STRIDE 32, 16 or 8 names the variant): train the upsampling or keep it bilinear;
    # factors of the skip features from fine to coarse, e.g. [0.0001, 0.01] for pool3 and pool4.
    _defaults(head, LEARN_UPSAMPLING=True, SKIP_SCALES=[])
    # Networks without padding (U-Net, valid): mirror training images so that every label counts,
    # or train on the part of the crop that the scores cover, as in the paper.
    _defaults(head, MIRROR_BORDER=True)


def _add_model_keys(model: CfgNode) -> None:
    # Keep weights and images in channels-last memory: faster convolutions, same results.
    _defaults(model, CHANNELS_LAST=False)
    # Compute activations of the backbone's blocks again instead of keeping them: less memory.
    _defaults(model, ACTIVATION_CHECKPOINTING=False)
    # Backend of torch.compile for backbone and semantic head, e.g. "inductor"; "" = off.
    _defaults(model, COMPILE="")
    # --- shared with Detectron2's DeepLab project
    # Dilation of res4 (2 gives output stride 8) and the rates of the three res5 blocks.
    _defaults(model.RESNETS, RES4_DILATION=1, RES5_MULTI_GRID=[1, 2, 4], STEM_TYPE="deeplab")
    # --- MaskRCNNC4 and MaskRCNNFPN
    # "fused" pools all levels in one operator, "detectron2" by Detectron2's ROIPooler. With "fused"
    # ROI_{BOX,MASK}_HEAD.POOLER_TYPE may be ROIAlignV2, ROIAlign, ROIAlignMax or ROIPool.
    _defaults(model, ROI_POOLER="fused")
    # pred_masks: "bitmask", (N, H, W) as Detectron2's, or "rle", run lengths of the same pixels.
    _defaults(model.ROI_MASK_HEAD, OUTPUT_FORMAT="bitmask")
    # --- PanopticSegmentor, beside Detectron2's keys of MODEL.PANOPTIC_FPN
    # Semantic label of each instance class; [] where label 0 stands for all things (Detectron2's
    # "separated" datasets). "fixed" loss weights, or "uncertainty": learned for each task.
    _defaults(model.PANOPTIC_FPN, THING_IDS=[], LOSS_WEIGHTING="fixed")
    _add_bottom_up_keys(model)
    # --- build_timm_backbone, build_timm_fpn_backbone (MODEL.BACKBONE.FREEZE_AT counts too)
    _defaults(model, TIMM=CfgNode())
    # A name of timm.list_models(), and whether to load timm's weights of that name (not where
    # MODEL.WEIGHTS replaces them).
    _defaults(model.TIMM, NAME="resnet50", PRETRAINED=False)
    # 32, 16 or 8: strides beyond it become dilations.
    _defaults(model.TIMM, OUTPUT_STRIDE=32)
    # res{n} has stride 2^n before dilation; e.g. ["res2", "res5"] suffice for DeepLabv3+.
    _defaults(model.TIMM, OUT_FEATURES=["res2", "res3", "res4", "res5"])
    # "" keeps the model's own batch norms; "FrozenBN", "SyncBN" or "GN" replace them.
    _defaults(model.TIMM, NORM="")
    # --- build_vgg_backbone
    _defaults(model, VGG=CfgNode())
    # 11, 13, 16 or 19; "" or "BN"; channels of the first stage and of fc6 and fc7; dropout there.
    _defaults(model.VGG, DEPTH=16, NORM="", WIDTH=64, FC_CHANNELS=4096, DROPOUT=0.5)
    # pool1 ... pool5, fc7.
    _defaults(model.VGG, OUT_FEATURES=["pool5"])
    # Padding of the first convolution (FCN: 100), and whether to hand on pooling indices (SegNet).
    _defaults(model.VGG, INPUT_PAD=1, POOLING_INDICES=False)
    # --- build_unet_backbone and SemSegUNetHead
    _defaults(model, UNET=CfgNode())
    # Levels, channels of the first one, "valid" or "same" padding, "" or a norm's name, dropout
    # after the two deepest levels.
    _defaults(model.UNET, DEPTH=5, WIDTH=64, PADDING="valid", NORM="", DROPOUT=0.5)
    # "transposed" or "bilinear"; channels of the decoder's steps from fine to coarse, or [] for
    # those of the encoder.
    _defaults(model.UNET, UPSAMPLING="transposed", DECODER_CHANNELS=[])
    # --- SemSegSegNetHead and build_segnet_basic_backbone
    _defaults(model, SEGNET=CfgNode())
    # Decoder convolutions per stage from fine to coarse (those of VGG-16), their size, ReLU after
    # them, and a 1x1 classifier on top; SegNet-Basic: [1, 1, 1, 1], 7, False, True.
    _defaults(model.SEGNET, CONVS=[2, 2, 3, 3, 3], KERNEL=3, DECODER_RELU=True)
    _defaults(model.SEGNET, EXTRA_CLASSIFIER=False, BASIC_WIDTH=64)
    # --- PatchClassifier (backbone and head are fixed)
    _defaults(model, PATCH=CfgNode())
    # Channels and sizes of the convolutions, width of the hidden layer (N4 of the paper).
    _defaults(model.PATCH, CHANNELS=48, KERNELS=[4, 5, 4, 4], HIDDEN=200)
    # Windows drawn from each training image; "dense" or "naive" evaluation.
    _defaults(model.PATCH, SAMPLES_PER_IMAGE=256, EVALUATION="dense")
    # --- how the semantic systems cover an image at inference
    _defaults(model, INFERENCE=CfgNode())
    # "whole", "slide" (windows blended) or "overlap_tile" (tiles with mirrored context).
    _defaults(model.INFERENCE, MODE="whole")
    # Height and width of a window or tile, step of the sliding window, Gaussian blending, and
    # context around a tile for networks that lose no border themselves.
    _defaults(model.INFERENCE, WINDOW=[512, 512], STRIDE=[384, 384], GAUSSIAN=True, CONTEXT=0)
    # Test-time augmentation: factors of the image size, and mirror images.
    _defaults(model.INFERENCE, SCALES=[1.0], FLIP=False)


def _add_bottom_up_keys(model: CfgNode) -> None:
    """BottomUpPanopticSegmentor; THING_IDS and LOSS_WEIGHTING are those of PANOPTIC_FPN."""
    _defaults(model, INS_EMBED_HEAD=CfgNode(), PANOPTIC_DEEPLAB=CfgNode())
    # --- shared with Detectron2's Panoptic-DeepLab project
    # The decoder for centres and offsets: keys as those of SEM_SEG_HEAD.
    head = model.INS_EMBED_HEAD
    _defaults(head, IN_FEATURES=["res2", "res3", "res5"], PROJECT_CHANNELS=[32, 64])
    _defaults(head, ASPP_CHANNELS=256, ASPP_DILATIONS=[6, 12, 18], ASPP_DROPOUT=0.1)
    _defaults(head, CONVS_DIM=128, NORM="SyncBN")
    # Channels before each of the two predictions, and the factors of their losses.
    _defaults(head, HEAD_CHANNELS=32, CENTER_LOSS_WEIGHT=200.0, OFFSET_LOSS_WEIGHT=0.01)
    # Centres: least value, side of the window whose maximum they are, and how many at most. Stuff
    # of fewer pixels than STUFF_AREA becomes void.
    _defaults(model.PANOPTIC_DEEPLAB, CENTER_THRESHOLD=0.1, NMS_KERNEL=7, TOP_K_INSTANCE=200)
    _defaults(model.PANOPTIC_DEEPLAB, STUFF_AREA=2048)
    # --- this package's own (the project has them under INPUT)
    # Sigma of a centre's bump in pixels; factor of the semantic loss in instances of fewer pixels.
    _defaults(model.PANOPTIC_DEEPLAB, GAUSSIAN_SIGMA=10.0)
    _defaults(model.PANOPTIC_DEEPLAB, SMALL_INSTANCE_AREA=4096, SMALL_INSTANCE_WEIGHT=3.0)


def _add_input_keys(inputs: CfgNode) -> None:
    # Dataset mapper by its registered name; "" takes the one of the dataset's task.
    _defaults(inputs, MAPPER="")
    # --- shared with Detectron2's DeepLab and PointRend projects
    # Draw a crop again while one class has more than this share of its valid pixels.
    _defaults(inputs.CROP, SINGLE_CATEGORY_MAX_AREA=1.0)
    # Random brightness, contrast, saturation and hue.
    _defaults(inputs, COLOR_AUG_SSD=False)
    # --- this package's own
    # Probability that a crop holds a pixel of a class drawn evenly from those in the image.
    _defaults(inputs.CROP, RARE_CLASS_CHANCE=0.0)
    # "shortest_edge" (MIN_SIZE_TRAIN ...), "scale_jitter" (IMAGE_SIZE times a factor between
    # MIN_SCALE and MAX_SCALE: large-scale jitter, with a crop of IMAGE_SIZE) or "fixed".
    _defaults(inputs, RESIZE="shortest_edge", IMAGE_SIZE=1024, MIN_SCALE=0.1, MAX_SCALE=2.0)
    # Turn by a random multiple of 90 degrees. RANDOM_FLIP may be "both", too.
    _defaults(inputs, RANDOM_TURN=False)
    # Largest sigma of a random blur, in pixels, and of random noise, in the image's unit.
    _defaults(inputs, BLUR_SIGMA=0.0, NOISE_SIGMA=0.0)
    # Probability of pasting another image's instances, and of a mosaic of four semantic samples.
    _defaults(inputs, COPY_PASTE=0.0, MOSAIC=0.0)
    # Stored values [low, high] that become 0..255, e.g. a CT window; [] keeps the values.
    _defaults(inputs, VALUE_RANGE=[])
    # MASK_FORMAT is Detectron2's; "none" trains on boxes alone (with MODEL.MASK_ON False).
    # Elastic deformation (U-Net): sigma of the displacements in pixels, 0 = off, and the points
    # of the coarse grid along each side. Instances need MASK_FORMAT "bitmask".
    _defaults(inputs, ELASTIC=CfgNode({"SIGMA": 0.0, "POINTS": 3}))
    # U-Net's weight map, computed in the loader: w_c + W0 exp(-(d1 + d2)^2 / (2 SIGMA^2)).
    # FOREGROUND: the classes whose connected components are cells; CLASS_WEIGHTS: w_c, empty = 1.
    _defaults(
        inputs,
        BORDER_WEIGHTS=CfgNode(
            {"ENABLED": False, "W0": 10.0, "SIGMA": 5.0, "FOREGROUND": [1], "CLASS_WEIGHTS": []}
        ),
    )
    # Decoded training images on disk: a folder on a fast disk, "" = off, and its bound.
    _defaults(inputs, DECODED_CACHE=CfgNode({"FOLDER": "", "MAX_GIB": 64.0}))
    # Semantic label of panoptic samples: all things as class 0, stuff from 1 (Panoptic FPN).
    _defaults(inputs, PANOPTIC_THINGS_AS_ONE=False)


def _add_dataset_keys(datasets: CfgNode) -> None:
    # A YAML file that describes a dataset of the user's own: see datasets/custom.example.yaml.
    _defaults(datasets, CUSTOM="")
    # Samples of each dataset that are checked before training starts (missing or damaged files,
    # labels outside the classes, ...); 0 checks none. tools/check_dataset.py checks all.
    _defaults(datasets, CHECK_SAMPLES=16)


def _add_solver_keys(solver: CfgNode) -> None:
    # "SGD" (Detectron2's) or "AdamW".
    _defaults(solver, OPTIMIZER="SGD")
    # Learning-rate factors by part of the model, e.g. [["backbone", 0.1]]: the longest prefix of
    # a parameter's name wins.
    _defaults(solver, LR_FACTORS=[])
    # WarmupPolyLR, as in Detectron2's DeepLab project.
    _defaults(solver, POLY_LR_POWER=0.9, POLY_LR_CONSTANT_ENDING=0.0)
    # Autocast type when SOLVER.AMP.ENABLED: "float16" (GPU) or "bfloat16" (GPU, CPU).
    _defaults(solver.AMP, DTYPE="float16")
    # Parts in which each process takes its share of IMS_PER_BATCH, one after the other: the same
    # step with less memory (batch statistics are those of a part).
    _defaults(solver, ACCUMULATE=1)
    # Batch that BASE_LR is meant for; BASE_LR is multiplied by IMS_PER_BATCH / it. 0 = as it is.
    _defaults(solver, REFERENCE_BATCH=0)
    # Numbered checkpoints to keep (0: all; with 1 there is none to fall back to), and whether
    # they are written in the background.
    _defaults(solver, KEEP_CHECKPOINTS=0, BACKGROUND_CHECKPOINTS=False)
    # Batches with a loss or gradient that is not finite to leave out before training stops.
    _defaults(solver, MAX_SKIPPED_BATCHES=0)
    # Stop after so many evaluations without a gain of TEST.BEST_METRIC; 0 = never.
    _defaults(solver, EARLY_STOPPING=CfgNode({"PATIENCE": 0, "MIN_GAIN": 0.0}))


def _add_test_keys(test: CfgNode) -> None:
    # Validation samples in the picture grid written at the end of training; 0 writes none.
    _defaults(test, PICTURES=8)
    # report.html at the end of a training and of --eval-only, and in it this many of the worst and
    # of the best images of each task, which are predicted again; 0 shows none.
    _defaults(test, REPORT=True, REPORT_IMAGES=3)
    # Result that decides which checkpoint is kept as model_best.pth, e.g. "sem_seg/mIoU";
    # "" takes the main one of the task (PQ, mask AP, box AP, mIoU).
    _defaults(test, BEST_METRIC="")
    # Losses on DATASETS.TEST at every evaluation, as validation/total_loss, ...
    _defaults(test, LOSS=False)
    # Write every prediction to inference/, in the format of the dataset's benchmark.
    _defaults(test, SAVE_PREDICTIONS=False)
    # Boundary IoU, boundary F1 and trimap mIoU; Boundary AP for instances. Slower.
    _defaults(test, BOUNDARY_MEASURES=False)


def get_cfg() -> CfgNode:
    """Detectron2's default configuration with this package's keys."""
    cfg = _detectron2_get_cfg()
    add_seg_config(cfg)
    return cfg


# ------------------------------------------------------------------------------------ loading


def config_root() -> Path:
    """The folder of the shipped configurations: ``configs/`` of a checkout or of the wheel."""
    package = Path(__file__).parents[1]
    for folder in (package / "configs", package.parent / "configs"):
        if (folder / "_base_").is_dir():
            return folder
    raise ConfigError(f"No shipped configurations beside {package}: is the package complete?")


def get_config_file(name: str) -> str:
    """Path of a shipped configuration, e.g. ``camvid/deeplabv3plus_r18.yaml``.

    Raises:
        ConfigError: there is no such configuration; the nearest names are listed.
    """
    root = config_root()
    path = root / name
    if path.is_file():
        return str(path)
    names = sorted(p.relative_to(root).as_posix() for p in root.glob("[!_]*/*.yaml"))
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
    raise ConfigError(f"No shipped configuration '{name}'. Nearest: {', '.join(near)}")


def find_config(path: str | Path) -> Path:
    """A configuration file as it stands, or the shipped one of that name.

    Raises:
        ConfigError: there is neither.
    """
    file = Path(path)
    if file.is_file():
        return file
    if file.is_absolute() or file.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"Configuration file not found: {file}")
    return Path(get_config_file(file.as_posix().removeprefix("configs/")))


def load_config(path: str | Path, opts: Sequence[str] = ()) -> CfgNode:
    """Read a configuration file and its bases, without executing anything in them.

    Args:
        path: a YAML file, or the name of a shipped one (see :func:`get_config_file`).
        opts: ``KEY VALUE`` pairs that override the file, as on the command line.

    Raises:
        ConfigError: a missing file, a YAML tag that would run code, an unknown key (the nearest
            known one is named) or a value of the wrong type.
    """
    file = find_config(path)
    cfg = get_cfg()
    loaded = _read_yaml(file)
    _check_keys(loaded, cfg, str(file))
    _merge(cfg, lambda: cfg.merge_from_other_cfg(CfgNode(loaded)), str(file))
    merge_opts(cfg, opts)
    return cfg


def merge_opts(cfg: CfgNode, opts: Sequence[str]) -> None:
    """Apply ``KEY VALUE`` pairs in place; errors as :func:`load_config`."""
    opts = list(opts)
    if len(opts) % 2:
        raise ConfigError(
            f"Options come as KEY VALUE pairs separated by spaces; '{opts[-1]}' is left over."
        )
    for key in opts[::2]:
        node: Any = cfg
        for i, part in enumerate(key.split(".")):
            if not isinstance(node, CfgNode) or part not in node:
                raise ConfigError(_unknown_key(cfg, key.split("."), i, "the command line"))
            node = node[part]
    _merge(cfg, lambda: cfg.merge_from_list(opts), "the command line")


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        return CfgNode.load_yaml_with_base(str(file), allow_unsafe=False)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{mark.name}, line {mark.line + 1}" if mark else str(file)
        reason = getattr(error, "problem", None) or str(error)
        if isinstance(error, yaml.constructor.ConstructorError):
            reason += " (tags that create Python objects are refused: they can run code)"
        raise ConfigError(f"{where}: {reason}") from None
    except FileNotFoundError as error:
        raise ConfigError(f"{file} or one of its _BASE_ files is missing: {error}") from None


def _check_keys(
    loaded: dict[str, Any], cfg: CfgNode, file: str, path: tuple[str, ...] = ()
) -> None:
    known = cfg
    for part in path:
        known = known[part]
    for key, value in loaded.items():
        if key not in known:
            raise ConfigError(_unknown_key(cfg, [*path, key], len(path), file))
        if isinstance(value, dict) and isinstance(known[key], CfgNode):
            _check_keys(value, cfg, file, (*path, key))


def _unknown_key(cfg: CfgNode, parts: Sequence[str], depth: int, file: str) -> str:
    """The message for an unknown key: the nearest sibling, else the same name elsewhere."""
    node = cfg
    for part in parts[:depth]:
        if not isinstance(node, CfgNode):
            break
        node = node[part]
    prefix = "".join(f"{part}." for part in parts[:depth])
    siblings = [prefix + key for key in node] if isinstance(node, CfgNode) else []
    name = ".".join(parts)
    near = difflib.get_close_matches(prefix + parts[depth], siblings, n=1, cutoff=0.6)
    near += [key for key in _all_keys(cfg) if key.endswith("." + parts[-1]) and key not in near][:3]
    if not near:
        near = difflib.get_close_matches(name, _all_keys(cfg), n=3, cutoff=0.3)
    return f"{file}: unknown key {name}. Did you mean {' or '.join(near) or 'another name'}?"


def _all_keys(cfg: CfgNode, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key, value in cfg.items():
        keys.append(prefix + key)
        if isinstance(value, CfgNode):
            keys += _all_keys(value, f"{prefix}{key}.")
    return keys


def _merge(cfg: CfgNode, merge: Any, source: str) -> None:
    """Run a merge of yacs and turn its complaints into a :class:`ConfigError`."""
    try:
        merge()
    except (AssertionError, KeyError, ValueError) as error:
        raise ConfigError(f"{source}: {error}") from None
