#!/usr/bin/env python
"""Draw samples of a dataset: the command `seg-plugins visualize`, in a checkout."""

from seg_plugins_cli import main

if __name__ == "__main__":
    main("visualize")
