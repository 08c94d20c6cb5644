"""What the mappers of all tasks share: the image, its augmentation, and the order of the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from detectron2.config import CfgNode, configurable

from ..config import ConfigError
from ..io.images import IMAGE_FORMATS, read_image, stored_rotated
from ..io.label_encoding import LabelEncoding
from .augmentation_builder import build_augmentations, build_cache, build_elastic, build_photometric
from .augmentations import Augmentation, Content
from .decoded_cache import DecodedCache
from .elastic import ElasticDeformation, Warp
from .errors import DatasetError
from .geometry import Geometry
from .photometric import Photometric
from .training_window import draw_window

__all__ = ["ImageMapper", "generator"]

_IDS = LabelEncoding()


def generator(rng: np.random.Generator | None) -> np.random.Generator:
    """`rng`, or a fresh one from NumPy's global state, which data loader workers seed."""
    return rng if rng is not None else np.random.default_rng(np.random.randint(2**31, size=4))


class ImageMapper:
    """Read one sample and augment it; the mapper of a task adds what the model is to predict.

    Args:
        is_train: read the annotation too.
        augmentations: geometry, in order.
        elastic: deformation after the other geometry.
        photometric: changes of colour, in order, after the geometry.
        image_format: "RGB", "BGR", "L", or "raw" for the stored channels and depth.
        cache: of decoded images and labels.
    """

    #: The keys below ``INPUT`` that may put other samples into one: COPY_PASTE, MOSAIC.
    combines_by: ClassVar[tuple[str, ...]] = ()
    #: Whether the masks of ``annotations`` are read, in the form of ``INPUT.MASK_FORMAT``.
    reads_masks: ClassVar[bool] = False

    @configurable
    def __init__(
        self,
        *,
        is_train: bool,
        augmentations: Sequence[Augmentation] = (),
        elastic: ElasticDeformation | None = None,
        photometric: Sequence[Photometric] = (),
        image_format: str = "BGR",
        cache: DecodedCache | None = None,
    ) -> None:
        if image_format not in IMAGE_FORMATS:
            raise ConfigError(
                f"INPUT.FORMAT is {image_format!r}; one of {', '.join(IMAGE_FORMATS)}"
            )
        self.is_train = is_train
        self.augmentations = tuple(augmentations)
        self.elastic = elastic
        self.photometric = tuple(photometric)
        self.image_format = image_format
        self.cache = cache

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {
            "is_train": is_train,
            "augmentations": build_augmentations(cfg, is_train),
            "elastic": build_elastic(cfg, is_train),
            "photometric": build_photometric(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
            "cache": build_cache(cfg, is_train),
        }

    def __call__(
        self, dataset_dict: dict[str, Any], rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Map one dataset dict to a sample.

        Args:
            dataset_dict: Detectron2's format; it is not changed. In training, one with a
                ``training_window`` stands for the window that is drawn by `rng`.
            rng: makes the sample a pure function of the arguments; None draws from NumPy's
                global state.

        Returns:
            The dict with ``image`` (C, H, W), values as stored, and, in training, what the task
            adds, see the class.

        Raises:
            DatasetError: a file that is unreadable or contradicts the dict.
        """
        rng = generator(rng)
        sample = dict(dataset_dict)
        if self.is_train and "training_window" in sample:
            sample = draw_window(sample, rng)
        image = self._read_image(sample)
        content = self.read(sample, image.shape[:2])
        geometry = Geometry.identity(image.shape[:2])
        for augmentation in self.augmentations:
            geometry = augmentation(rng, geometry, content)
        field = self.elastic.draw(rng, *geometry.output_size) if self.elastic else None
        warp = Warp(geometry, field)
        image = warp.apply_image(image)
        for change in self.photometric:
            image = change(rng, image)
        sample["image"] = image_to_tensor(image)
        if self.is_train:
            sample.update(self.targets(content, warp))
        return sample

    def read(self, sample: dict[str, Any], size: tuple[int, int]) -> Content:
        """Read the annotation, in training, and take out of `sample` what is used up by that.

        Args:
            sample: the dataset dict, to be changed.
            size: (height, width) of the image.
        """
        raise NotImplementedError

    def targets(self, content: Content, warp: Warp) -> dict[str, Any]:
        """What the model is to predict, in the augmented frame."""
        raise NotImplementedError

    def read_label(self, sample: dict[str, Any], size: tuple[int, int]) -> np.ndarray | None:
        """The class ids of ``sem_seg_file_name``, (H, W); None when testing."""
        encoding = sample.pop("sem_seg_encoding", _IDS)
        if not self.is_train:
            return None
        name = sample["sem_seg_file_name"]
        label = self.cached(name, repr(encoding), lambda: encoding(name))
        check_size(label, name, sample, size)
        return label

    def cached(self, file_name: str, kind: str, read: Callable[[], np.ndarray]) -> np.ndarray:
        """The result of `read`, from the cache where there is one; see `DecodedCache.get`."""
        return read() if self.cache is None else self.cache.get(file_name, kind, read)

    def _read_image(self, sample: dict[str, Any]) -> np.ndarray:
        """Read ``file_name`` and note or check ``height`` and ``width``."""
        name = sample["file_name"]
        image = self.cached(name, self.image_format, lambda: read_image(name, self.image_format))
        height, width = image.shape[:2]
        expected = sample.setdefault("height", height), sample.setdefault("width", width)
        if (height, width) != expected:
            raise DatasetError(size_problem(name, (height, width), expected))
        unknown = not_finite(image)
        if unknown:
            raise DatasetError(f"{name}: {unknown}")
        return image


def size_problem(name: str, found: tuple[Any, Any], expected: tuple[Any, Any]) -> str:
    """What is wrong where an image has another (height, width) than its annotation says."""
    problem = (
        f"{name}: the image is {found[0]}x{found[1]} (height x width), its annotation says "
        f"{expected[0]}x{expected[1]}"
    )
    if found == expected[::-1] and stored_rotated(name):
        problem += (
            ": these are the sides before its EXIF tag turns it upright. If it was annotated "
            "upright, as most programs show it, exchange width and height in the annotation file; "
            "if not, store the image without the tag"
        )
    return problem


def not_finite(image: np.ndarray) -> str:
    """What is wrong with an image that holds NaN or infinite values; "" where nothing is."""
    if image.dtype.kind != "f" or np.isfinite(image).all():
        return ""
    count = int((~np.isfinite(image).all(axis=2)).sum())
    return (
        f"{count} of {image.shape[0] * image.shape[1]} pixels hold NaN or infinity; give them a "
        "value, and the ignore label in the label"
    )


def check_size(
    label: np.ndarray, label_name: str, sample: dict[str, Any], size: tuple[int, int]
) -> None:
    """Raise DatasetError where a label has another size than its image."""
    if label.shape[:2] != size:
        raise DatasetError(
            f"{label_name}: the label is {label.shape[0]}x{label.shape[1]} (height x width), its "
            f"image {sample['file_name']} is {size[0]}x{size[1]}"
        )


def label_to_tensor(label: np.ndarray) -> torch.Tensor:
    """(H, W) ids of any integer type -> int64, late: the narrow types are faster to move."""
    return torch.from_numpy(label.astype(np.int64))


def image_to_tensor(image: np.ndarray) -> torch.Tensor:
    """(H, W, C) array -> (C, H, W) tensor; 16-bit values become float32."""
    if image.dtype not in (np.uint8, np.float32):
        image = image.astype(np.float32)
    pixels = np.ascontiguousarray(image.transpose(2, 0, 1))
    # One channel comes through as it was read: from a decoder or a cache that own the memory.
    return torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
