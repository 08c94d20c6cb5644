"""From maps at the network's size to maps at the image's."""

from __future__ import annotations

from detectron2.modeling.postprocessing import sem_seg_postprocess as resized
from torch import Tensor


def sem_seg_postprocess(
    result: Tensor, img_size: tuple[int, int], output_height: int, output_width: int
) -> Tensor:
    """Detectron2's function of this name, without its work where the size is right already.

    Args:
        result: (C, H, W) map of an image that may have been padded.
        img_size: of the image in the map, without the padding.
        output_height: wanted, in pixels.
        output_width: wanted, in pixels.

    Returns:
        (C, output_height, output_width), by bilinear interpolation; at the image's own size the
        values of `result`, in its own memory where nothing was padded.
    """
    part = result[:, : img_size[0], : img_size[1]]
    if part.shape[-2:] != (output_height, output_width):
        return resized(result, img_size, output_height, output_width)
    return part if part.shape == result.shape else part.clone()
