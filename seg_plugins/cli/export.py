"""``seg-plugins export``: a trained model as ONNX, TorchScript or safetensors, run beside it."""

from __future__ import annotations

import argparse

from ..export import export_model, load_for_export
from ..io.errors import SegPluginsError

EXPECTED = (SegPluginsError, OSError)


def run(args: argparse.Namespace) -> None:
    """Write the file; errors as of :func:`seg_plugins.export.export_model`."""
    cfg, model = load_for_export(args.config_file, args.weights, args.opts)
    result = export_model(cfg, model, args.format, args.output, report=print)
    print(f"{result.path}: {result.path.stat().st_size / 2**20:.1f} MiB")
