"""ONNX files as OpenVINO's models, which then choose among equals as ONNX says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def read_onnx(core: Any, source: Path | bytes) -> Any:
    """OpenVINO's model of an ONNX file, with two operators mended.

    OpenVINO (2026.4) takes them for others than ONNX's: its ``TopK`` gives equal values in any
    order, where ONNX has the one of the lower index first; its ``NonMaxSuppression`` drops a box
    whose IoU with a better one is the threshold, where ONNX drops it only above. Boxes on a grid
    often have an IoU of exactly 1/2.

    Args:
        core: of OpenVINO.
        source: the file or its content.

    Raises:
        RuntimeError: OpenVINO does not read it.
    """
    model = core.read_model(source)
    for operator in model.get_ops():
        if operator.get_type_name() == "TopK":
            operator.set_attribute("stable", True)
        elif operator.get_type_name() == "NonMaxSuppression":
            _drop_above(operator)
    return model


def _drop_above(operator: Any) -> None:
    """At the next float32 and above it: that is above the threshold."""
    from openvino import opset13

    threshold = operator.input_value(3).get_node()
    if threshold.get_type_name() != "Constant":
        raise RuntimeError(f"{operator.get_friendly_name()}: its threshold is no constant")
    above = np.nextafter(np.float32(threshold.data), np.float32(np.inf))
    operator.input(3).replace_source_output(opset13.constant(above).output(0))
