"""What weights of a library expect of the images and the network, which no tensor tells."""

from __future__ import annotations

from torch import nn

from .fit import Fit
from .names import Library


def contradictions(found: Fit, model: nn.Module, image_format: str) -> list[str]:
    """What of the configuration is not as the file's library has it, with the keys that mend it.

    Args:
        found: the file and what of it fits.
        model: as built.
        image_format: ``INPUT.FORMAT``.
    """
    library = found.library
    if library is None:
        return []
    wrong = []
    if library.mean and not _scaled_alike(model, library, image_format):
        wrong.append(
            "images as its network saw them: INPUT.FORMAT RGB "
            f"MODEL.PIXEL_MEAN {list(library.mean)} MODEL.PIXEL_STD {list(library.std)}"
        )
    if library.late_stride and any(_strides_early(module) for module in model.modules()):
        wrong.append("the stride in the 3x3 convolution: MODEL.RESNETS.STRIDE_IN_1X1 False")
    return wrong


def _scaled_alike(model: nn.Module, library: Library, image_format: str) -> bool:
    """Whether images come as the library's; those of other than three channels cannot."""
    for name, wanted in (("pixel_mean", library.mean), ("pixel_std", library.std)):
        values = getattr(model, name).flatten().tolist() if hasattr(model, name) else []
        if values and len(values) != len(wanted):
            return True
        if not values or any(abs(a - b) >= 2 for a, b in zip(values, wanted, strict=True)):
            return False
    return image_format == "RGB"


def _strides_early(module: nn.Module) -> bool:
    """Whether it is a block of Caffe's ResNet: three convolutions, the stride in the first."""
    first, last = getattr(module, "conv1", None), getattr(module, "conv3", None)
    return (
        isinstance(first, nn.Conv2d)
        and isinstance(last, nn.Conv2d)
        and max(first.stride) > 1
        and first.kernel_size == (1, 1)
    )
