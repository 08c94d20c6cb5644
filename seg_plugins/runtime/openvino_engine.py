"""Files run by OpenVINO, on the CPU: its own IR, or ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .errors import ModelFileError
from .openvino_model import as_onnx_says
from .openvino_requests import Requests
from .reasons import cannot_open, cannot_run, first_line
from .threads import usable_threads

# Where the export puts the metadata in the runtime information of an IR.
SECTION = "seg_plugins"
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
        self.path, name = path, f"openvino {openvino.__version__}"
        core = openvino.Core()
        try:
            model = core.read_model(path)
        except RuntimeError as error:
            raise cannot_open(path, name, first_line(error, last=True)) from None
        self.metadata = _metadata(model, path)
        if path.suffix.lower() == ".onnx":
            as_onnx_says(model, self.metadata)
        # Of the names of one output those of layers that were joined to it do no harm.
        self._names = [output.get_names() for output in model.outputs]
        self._precision, wanted = precision, _TYPES[precision]
        self._requests = Requests(core, model, threads or usable_threads(), wanted)
        self.rank = self._requests.rank
        self._check_precision()

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """See :meth:`.engines.Engine.run`."""
        try:
            values = self._requests.infer(images)
        except RuntimeError as error:
            reason = first_line(error, last=True)
            raise cannot_run(
                self.path, "openvino", images, reason, ", or --runtime onnx"
            ) from error
        self._check_precision()
        found = zip(self._names, values, strict=True)
        return {name: value for names, value in found for name in names}

    def _check_precision(self) -> None:
        """Networks of a size are compiled when it comes."""
        used = self._requests.precision
        if used != _TYPES[self._precision]:
            raise ModelFileError(
                f"{self.path}: this processor has no {self._precision}, OpenVINO would use {used}: "
                f"leave --precision {self._precision} out"
            )


def metadata_of(model: Any) -> dict[str, str]:
    """Text by name, of an IR's runtime information; empty for a file of another program."""
    if not model.has_rt_info([SECTION]):
        return {}
    return {key: str(value) for key, value in model.get_rt_info([SECTION]).value.items()}


def _metadata(model: Any, path: Path) -> dict[str, str]:
    """Of an IR; those of an ONNX file OpenVINO leaves behind."""
    if path.suffix.lower() != ".onnx":
        return metadata_of(model)
    try:
        import onnx
    except ImportError as error:
        raise ModelFileError(
            f"{path}: {error}: OpenVINO reads .onnx files with pip install 'seg_plugins[export]', "
            "and .xml files without"
        ) from None
    entries = onnx.load(path, load_external_data=False).metadata_props
    return {entry.key: entry.value for entry in entries}
