"""``seg-plugins export``: a trained model as a file of another format, run beside it."""

from __future__ import annotations

import argparse

from ..export import ExportOptions, export_model, load_for_export
from ..io.errors import SegPluginsError

EXPECTED = (SegPluginsError, OSError)


def run(args: argparse.Namespace) -> None:
    """Write the file; errors as of :func:`seg_plugins.export.export_model`."""
    cfg, model = load_for_export(args.config_file, args.weights, args.opts)
    options = ExportOptions(
        opset=args.opset,
        float16=args.float16,
        int8=args.int8,
        max_loss=args.max_loss,
        verify_on=args.verify_on,
    )
    result = export_model(cfg, model, args.format, args.output, options, report=print)
    size = sum(file.stat().st_size for file in result.files)
    print(f"{result.path}: {size / 2**20:.1f} MiB")
