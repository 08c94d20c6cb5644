"""Files run by onnxruntime, on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .errors import ModelFileError
from .reasons import cannot_open, cannot_run, first_line
from .threads import usable_threads


class OnnxEngine:
    """See :class:`.engines.Engine`.

    Args:
        path: ``.onnx``.
        threads: 0: as many as there are processors for this process.
        precision: ``float32``; onnxruntime has no bfloat16 on these processors.

    Raises:
        ModelFileError: see :func:`.engines.open_engine`.
    """

    def __init__(self, path: Path, threads: int = 0, precision: str = "float32") -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ModelFileError(
                f"{path}: {error}: --runtime onnx needs pip install 'seg_plugins[export]'"
            ) from None
        if precision != "float32":
            raise ModelFileError(
                f"{path}: onnxruntime computes in float32 on a CPU: use --runtime openvino for "
                f"{precision}"
            )
        self.path = path
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what goes wrong is in the exception
        options.intra_op_num_threads = threads or usable_threads()
        # Between two images its threads would keep the processors from reading and writing.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._errors = runtime_errors()
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except self._errors as error:
            name = f"onnxruntime {onnxruntime.__version__}"
            raise cannot_open(path, name, first_line(error)) from None
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        source = self._session.get_inputs()[0]
        self._input, self.rank = source.name, len(source.shape)
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """See :meth:`.engines.Engine.run`."""
        try:
            values = self._session.run(None, {self._input: images})
        except self._errors as error:
            raise cannot_run(self.path, "onnxruntime", images, first_line(error)) from error
        return dict(zip(self._names, values, strict=True))


def runtime_errors() -> tuple[type[Exception], ...]:
    """Onnxruntime's exceptions, which have no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found = (value for value in vars(state).values() if isinstance(value, type))
    return (*(kind for kind in found if issubclass(kind, Exception)), RuntimeError, ValueError)
