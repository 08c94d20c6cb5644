"""Files run by OpenVINO, on the CPU: its own IR, or ONNX."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ModelFileError
from .reasons import cannot_open, cannot_run, first_line
from .threads import usable_threads

# Where the export puts the metadata in the runtime information of an IR.
_SECTION = "seg_plugins"
# Images with a shorter side are run by a network of exactly their size; and so many are kept.
_SMALL, _KEPT = 64, 4
_TYPES = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoEngine:
    """See :class:`.engines.Engine`.

    Args:
        path: ``.xml`` or ``.onnx``.
        threads: 0: as many as there are processors for this process.
        precision: ``float32`` or ``bfloat16``. OpenVINO's own default is the processor's fastest,
            which moves results: it has to be asked for.

    Raises:
        ModelFileError: see :func:`.engines.open_engine`.
    """

    def __init__(self, path: Path, threads: int = 0, precision: str = "float32") -> None:
        try:
            import openvino
        except ImportError as error:
            raise ModelFileError(
                f"{path}: {error}: --runtime openvino needs pip install 'seg_plugins[openvino]'"
            ) from None
        if path.suffix.lower() == ".xml" and not path.with_suffix(".bin").is_file():
            raise ModelFileError(
                f"{path.with_suffix('.bin')}: no such file: the weights of {path.name} belong "
                "beside it"
            )
        self.path, self._name = path, f"openvino {openvino.__version__}"
        self._core, self._precision = openvino.Core(), precision
        self._settings = {
            "INFERENCE_PRECISION_HINT": _TYPES[precision],
            "INFERENCE_NUM_THREADS": threads or usable_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            self._model = self._core.read_model(path)
        except RuntimeError as error:
            raise cannot_open(path, self._name, first_line(error, last=True)) from None
        self.metadata = _metadata(self._model, path)
        self.rank = len(self._model.inputs[0].get_partial_shape())
        # Of the names of one output those of layers that were joined to it do no harm.
        self._names = [output.get_names() for output in self._model.outputs]
        # A request takes one input at a time; a predictor may be called from several threads.
        self._lock = threading.Lock()
        self._of_size: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self._of_all = self._request(self._model) if self.rank == 4 else None

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """See :meth:`.engines.Engine.run`."""
        try:
            with self._lock:
                values = self._request_for(images.shape).infer([images], share_outputs=False)
        except RuntimeError as error:
            reason = first_line(error, last=True)
            raise cannot_run(
                self.path, "openvino", images, reason, ", or --runtime onnx"
            ) from error
        return {
            name: np.asarray(values[i]) for i, names in enumerate(self._names) for name in names
        }

    def _request_for(self, shape: tuple[int, ...]) -> Any:
        """Of a network of that size where one of free sizes would be wrong, without a word.

        With free sizes OpenVINO (2026.4) finds other instances than onnxruntime, or none, and where
        a pooling's window is larger than its map it gives values from elsewhere in memory. Of a
        size that is known the results are the same, and the pooling is an error.
        """
        if self._of_all is not None and min(shape[-2:]) >= _SMALL:
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
        used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if used != _TYPES[self._precision]:
            raise ModelFileError(
                f"{self.path}: this processor has no {self._precision}, {self._name} would use "
                f"{used}: leave --precision {self._precision} out"
            )
        return compiled.create_infer_request()


def _metadata(model: Any, path: Path) -> dict[str, str]:
    """Of an IR in its runtime information; those of an ONNX file OpenVINO leaves behind."""
    if path.suffix.lower() != ".onnx":
        if not model.has_rt_info([_SECTION]):
            return {}
        return {key: str(value) for key, value in model.get_rt_info([_SECTION]).value.items()}
    try:
        import onnx
    except ImportError as error:
        raise ModelFileError(
            f"{path}: {error}: OpenVINO reads .onnx files with pip install 'seg_plugins[export]', "
            "and .xml files without"
        ) from None
    entries = onnx.load(path, load_external_data=False).metadata_props
    return {entry.key: entry.value for entry in entries}
