#!/usr/bin/env python
"""Write a model as ONNX and others: the command `seg-plugins export`, in a checkout."""

from seg_plugins_cli import main

if __name__ == "__main__":
    main("export")
