"""Keys of INPUT and DATASETS, and of what damaged samples do: from files to samples."""

from __future__ import annotations

from detectron2.config import CfgNode

from .defaults import set_defaults


def add_input_keys(inputs: CfgNode) -> None:
    """How an image and its annotations are read and augmented."""
    # Dataset mapper by its registered name; "" takes the one of the dataset's task.
    set_defaults(inputs, MAPPER="")
    # --- shared with Detectron2's DeepLab and PointRend projects
    # Draw a crop again while one class has more than this share of its valid pixels.
    set_defaults(inputs.CROP, SINGLE_CATEGORY_MAX_AREA=1.0)
    # Random brightness, contrast, saturation and hue.
    set_defaults(inputs, COLOR_AUG_SSD=False)
    # --- this package's own
    # Probability that a crop holds a pixel of a class drawn evenly from those in the image.
    set_defaults(inputs.CROP, RARE_CLASS_CHANCE=0.0)
    set_defaults(
        inputs,
        # "shortest_edge" (MIN_SIZE_TRAIN ...), "scale_jitter" (IMAGE_SIZE times a factor between
        # MIN_SCALE and MAX_SCALE: large-scale jitter, with a crop of IMAGE_SIZE) or "fixed".
        RESIZE="shortest_edge",
        # Side in pixels of the square that "scale_jitter" fits images into.
        IMAGE_SIZE=1024,
        # Least factor of "scale_jitter".
        MIN_SCALE=0.1,
        # Largest factor of "scale_jitter".
        MAX_SCALE=2.0,
    )
    # Turn by a random multiple of 90 degrees. RANDOM_FLIP may be "both", too.
    set_defaults(inputs, RANDOM_TURN=False)
    set_defaults(
        inputs,
        # Largest sigma of a random blur, in pixels.
        BLUR_SIGMA=0.0,
        # Largest sigma of random noise, in the image's unit.
        NOISE_SIGMA=0.0,
        # Probability of pasting another image's instances.
        COPY_PASTE=0.0,
        # Probability of a mosaic of four semantic samples.
        MOSAIC=0.0,
    )
    # Stored values [low, high] that become 0..255, e.g. a CT window; [] keeps the values.
    set_defaults(inputs, VALUE_RANGE=[])
    # MASK_FORMAT is Detectron2's; "none" trains on boxes alone (with MODEL.MASK_ON False).
    set_defaults(inputs, ELASTIC=CfgNode(), BORDER_WEIGHTS=CfgNode(), DECODED_CACHE=CfgNode())
    set_defaults(
        inputs.ELASTIC,
        # Elastic deformation (U-Net): sigma of the displacements in pixels, 0 = off. Instances
        # need MASK_FORMAT "bitmask".
        SIGMA=0.0,
        # Points of its coarse grid along each side.
        POINTS=3,
    )
    set_defaults(
        inputs.BORDER_WEIGHTS,
        # U-Net's weight map, computed in the loader: w_c + W0 exp(-(d1 + d2)^2 / (2 SIGMA^2)).
        ENABLED=False,
        # Weight of a border between two cells that touch.
        W0=10.0,
        # How far from the cells it reaches, in pixels.
        SIGMA=5.0,
        # Classes whose connected components are cells.
        FOREGROUND=[1],
        # w_c of each class; [] = 1.
        CLASS_WEIGHTS=[],
    )
    set_defaults(
        inputs.DECODED_CACHE,
        # Decoded training images on disk: a folder on a fast disk, "" = off.
        FOLDER="",
        # Its largest size.
        MAX_GIB=64.0,
    )
    # Read sizes, CROP.SIZE, FORMAT and, if not RGB, MODEL.PIXEL_MEAN and PIXEL_STD from 32 training
    # images, but for those set by your own file or the command line; five evaluations in a run.
    set_defaults(inputs, FIT_TO_DATA=False)
    # Semantic label of panoptic samples: all things as class 0, stuff from 1 (Panoptic FPN).
    set_defaults(inputs, PANOPTIC_THINGS_AS_ONE=False)


def add_dataset_keys(datasets: CfgNode) -> None:
    """Datasets of the user's own, and the check before training."""
    # A YAML file that describes a dataset of the user's own: see datasets/custom.example.yaml.
    set_defaults(datasets, CUSTOM="")
    # Samples of each dataset that are checked before training starts (missing or damaged files,
    # labels outside the classes, ...); 0 checks none. `seg-plugins check` checks all.
    set_defaults(datasets, CHECK_SAMPLES=16)


def add_dataloader_keys(dataloader: CfgNode) -> None:
    """What is drawn how often, and what becomes of damaged samples."""
    # SAMPLER_TRAIN is Detectron2's. RepeatFactorTrainingSampler: images of classes that fewer than
    # the share REPEAT_THRESHOLD (Detectron2's) of the images have come sqrt(REPEAT_THRESHOLD /
    # share) times in an epoch; without the root if REPEAT_SQRT is False.
    set_defaults(dataloader, REPEAT_SQRT=True)
    # RandomSubsetTrainingSampler: the share of the images that training draws from.
    set_defaults(dataloader, RANDOM_SUBSET_RATIO=1.0)
    # Share of the training samples that may be damaged, which are replaced by others, and of the
    # annotations that may be wrong, which are left out; the log names them. 0: an error.
    set_defaults(dataloader, MAX_DAMAGED=0.0)
