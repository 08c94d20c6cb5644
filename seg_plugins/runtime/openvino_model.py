"""ONNX files as OpenVINO's models, which then choose among equals as ONNX says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

#: Metadata of a file that says "true" where equal scores have to keep their order.
FIRST_OF_EQUALS = "first_of_equals"


def as_onnx_says(model: Any, metadata: Mapping[str, str]) -> Any:
    """Mend two operators of OpenVINO's model of an ONNX file, in place; returns the model.

    OpenVINO (2026.4) takes them for others than ONNX's: its ``NonMaxSuppression`` drops a box whose
    IoU with a better one is the threshold, where ONNX drops it only above (boxes on a grid often
    have an IoU of exactly 1/2); its ``TopK`` gives equal values in any order, where ONNX has the
    one of the lower index first. It can be told to, and is then forty times slower for proposals
    of regions: so it is told only for systems whose scores are often equal.

    Args:
        model: as OpenVINO reads the ONNX file.
        metadata: of the file.
    """
    for operator in model.get_ops():
        if operator.get_type_name() == "TopK":
            operator.set_attribute("stable", metadata.get(FIRST_OF_EQUALS) == "true")
        elif operator.get_type_name() == "NonMaxSuppression":
            _drop_above(operator)
    return model


def _drop_above(operator: Any) -> None:
    """At the next float32 and above it: that is above the threshold."""
    from openvino import opset13

    threshold = operator.input_value(3).get_node()
    if threshold.get_type_name() != "Constant":
        return  # of no file of this package; others are refused for what their metadata lack
    above = np.nextafter(np.float32(threshold.data), np.float32(np.inf))
    operator.input(3).replace_source_output(opset13.constant(above).output(0))
