"""What weights of a library expect of the images and the network, which no tensor tells."""

from __future__ import annotations

from torch import nn

from .fit import Fit


def contradictions(found: Fit, model: nn.Module, image_format: str) -> list[str]:
    """What of the configuration is not as the file's library has it, with the keys that mend it.

    Args:
        found: the file and what of it fits.
        model: as built.
        image_format: ``INPUT.FORMAT``.
    """
    library = found.library
    if library is None or not library.mean:
        return []
    wrong = []
    mean, std = (getattr(model, name, None) for name in ("pixel_mean", "pixel_std"))
    alike = (
        mean is not None and std is not None and mean.numel() == len(library.mean)
        and all(abs(a - b) < 2 for a, b in zip(mean.flatten().tolist(), library.mean, strict=True))
        and all(abs(a - b) < 2 for a, b in zip(std.flatten().tolist(), library.std, strict=True))
    )  # fmt: skip
    three = mean is None or mean.numel() == len(library.mean)
    if three and (image_format != "RGB" or not alike):
        wrong.append(
            "images as its network saw them: INPUT.FORMAT RGB "
            f"MODEL.PIXEL_MEAN {list(library.mean)} MODEL.PIXEL_STD {list(library.std)}"
        )
    if any(_strides_early(module) for module in model.modules()):
        wrong.append("the stride in the 3x3 convolution: MODEL.RESNETS.STRIDE_IN_1X1 False")
    return wrong


def _strides_early(module: nn.Module) -> bool:
    """Whether it is a block of Caffe's ResNet: three convolutions, the stride in the first."""
    first, last = getattr(module, "conv1", None), getattr(module, "conv3", None)
    return (
        isinstance(first, nn.Conv2d)
        and isinstance(last, nn.Conv2d)
        and max(first.stride) > 1
        and first.kernel_size == (1, 1)
    )
