#!/usr/bin/env python
"""Score files of predictions: the command `seg-plugins evaluate`, in a checkout."""

from seg_plugins_cli import main

if __name__ == "__main__":
    main("evaluate")
