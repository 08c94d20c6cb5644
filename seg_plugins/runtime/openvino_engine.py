"""Files run by OpenVINO, on the CPU: its own IR, or ONNX."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np

from .errors import ModelFileError
from .reasons import cannot_open, cannot_run, first_line
from .threads import usable_threads

# Where the export puts the metadata in the runtime information of an IR.
_SECTION = "seg_plugins"
# Images with a shorter side are run by a network of exactly their size, see `run`.
_SMALL = 64
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
        name, kind = f"openvino {openvino.__version__}", _TYPES[precision]
        self._core = openvino.Core()
        self._settings = {
            "INFERENCE_PRECISION_HINT": kind,
            "INFERENCE_NUM_THREADS": threads or usable_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            self._model = self._core.read_model(path)
            compiled = self._core.compile_model(self._model, "CPU", self._settings)
        except RuntimeError as error:
            raise cannot_open(path, name, first_line(error, last=True)) from None
        used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        if used != kind:
            raise ModelFileError(
                f"{path}: this processor has no {precision}, {name} would use {used}: leave "
                f"--precision {precision} out"
            )
        self.path, self.metadata = path, _metadata(self._model, path)
        self.rank = len(self._model.inputs[0].get_partial_shape())
        # Of the names of one output those of layers that were joined to it do no harm.
        self._names = [output.get_names() for output in compiled.outputs]
        self._request, self._lock = compiled.create_infer_request(), threading.Lock()

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """See :meth:`.engines.Engine.run`."""
        # Where sizes are free OpenVINO does not see that a pooling's window is larger than its map,
        # and gives values from elsewhere in memory; of a size that is known it does.
        small = min(images.shape[-2:]) < _SMALL
        try:
            # A request takes one input at a time; a predictor may be called from several threads.
            with self._lock:
                request = self._request_for(images.shape) if small else self._request
                values = request.infer([images], share_outputs=False)
        except RuntimeError as error:
            raise cannot_run(
                self.path, "openvino", images, first_line(error, last=True), ", or --runtime onnx"
            ) from error
        return {
            name: np.asarray(values[i]) for i, names in enumerate(self._names) for name in names
        }

    def _request_for(self, shape: tuple[int, ...]) -> Any:
        model = self._model.clone()
        model.reshape(list(shape))
        return self._core.compile_model(model, "CPU", self._settings).create_infer_request()


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
