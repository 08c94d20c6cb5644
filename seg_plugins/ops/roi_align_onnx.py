"""RoIAlign of one feature map as ONNX's standard operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


def onnx_translations() -> dict[Callable, Callable]:
    """The ``custom_translation_table`` for ``torch.onnx.export(..., dynamo=True)``.

    Maps ``seg_plugins::roi_align`` on one level with the mean to ``RoiAlign`` (opset 16 and later).
    ONNX's operator knows one map, so a pyramid must be pooled level by level before the export;
    its maximum is defined differently. Both raise ValueError during the export.

    Raises:
        ImportError: onnxscript is not installed (``pip install onnxscript``).
    """
    from onnxscript import opset18 as op

    def roi_align(
        features: Sequence[Any],
        boxes: Any,
        output_size: Sequence[int],
        spatial_scales: Sequence[float],
        sampling_ratio: int,
        aligned: bool,
        maximum: bool,
        canonical_box_size: float,
        canonical_level: int,
        min_level: int,
    ) -> tuple[Any, Any]:
        if len(spatial_scales) != 1:
            raise ValueError("ONNX's RoiAlign takes one feature map: pool level by level to export")
        if maximum:
            raise ValueError("ONNX's RoiAlign has another maximum: export reduce='avg'")
        columns = [op.Constant(value_ints=[i]) for i in (0, 1, 5)]
        index = op.Cast(op.Squeeze(op.Slice(boxes, columns[0], columns[1], columns[1]), [1]), to=7)
        output = op.RoiAlign(
            features[0],
            op.Slice(boxes, columns[1], columns[2], columns[1]),
            index,
            coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
            mode="avg",
            output_height=output_size[0],
            output_width=output_size[1],
            sampling_ratio=max(sampling_ratio, 0),
            spatial_scale=spatial_scales[0],
        )
        return output, op.Constant(value_ints=[0])

    return {torch.ops.seg_plugins.roi_align.default: roi_align}
