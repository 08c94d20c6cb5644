#!/usr/bin/env python
"""Count a model's operations: the command `seg-plugins analyze`, in a checkout."""

from seg_plugins_cli import main

if __name__ == "__main__":
    main("analyze")
