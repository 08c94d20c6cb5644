"""OpenVINO's networks of one file: of free sizes, or of the image's own where those were wrong."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np

# Images with a shorter side are run by a network of exactly their size; and so many are kept.
_SMALL, _KEPT = 64, 4


class Requests:
    """Runs a model, compiled as often as its images' sizes ask for.

    With free sizes OpenVINO (2026.4) takes (a / n) * n of whole numbers for a, pads no image of an
    ONNX file, and finds other instances than onnxruntime, or none. (Where the division is mended,
    as in an IR, the instances are right with free sizes, too; an image takes 1 to 8% longer, and no
    size is compiled again, which takes 0.2 to 2 s for small networks.) Where a pooling's window is
    larger than its map it gives values from elsewhere in memory. Of a size that is known the
    results are the same, and the pooling is an error.

    Args:
        core: of OpenVINO.
        model: that it has read.
        threads: to compute with.
        precision: ``f32`` or ``bf16``.

    Attributes:
        rank: dimensions of the input: 4 (N, C, H, W), or 3 (C, H, W) of systems of instances.
        precision: that the processor computes in, as the last compiled network says.
    """

    def __init__(self, core: Any, model: Any, threads: int, precision: str) -> None:
        self._core, self._model = core, model
        self._settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self.rank, self.precision = len(model.inputs[0].get_partial_shape()), precision
        # A request takes one input at a time; a predictor may be called from several threads.
        self._lock = threading.Lock()
        self._of_size: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._of_all = None if self.rank == 3 else self._request(model)

    def infer(self, images: np.ndarray) -> list[np.ndarray]:
        """The outputs in the model's order.

        Raises:
            RuntimeError: the model does not take the input.
        """
        with self._lock:
            values = self._for(images.shape).infer([images], share_outputs=False)
            return [np.asarray(values[i]) for i in range(len(self._model.outputs))]

    def _for(self, shape: tuple[int, ...]) -> Any:
        if self._of_all is not None and (self.rank < 3 or min(shape[-2:]) >= _SMALL):
            return self._of_all
        if shape not in self._of_size:
            model = self._model.clone()
            model.reshape(list(shape))
            self._of_size[shape] = self._request(model)
            if len(self._of_size) > _KEPT:
                self._of_size.popitem(last=False)
        self._of_size.move_to_end(shape)
        return self._of_size[shape]

    def _request(self, model: Any) -> Any:
        compiled = self._core.compile_model(model, "CPU", self._settings)
        self.precision = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        return compiled.create_infer_request()
