#!/usr/bin/env python
"""Predict images, videos and TIFFs: the command `seg-plugins predict`, in a checkout."""

from seg_plugins_cli import main

if __name__ == "__main__":
    main("predict")
