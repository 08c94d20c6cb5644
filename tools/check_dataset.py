#!/usr/bin/env python
"""Check a dataset before training on it: the command `seg-plugins check`, in a checkout."""

from seg_plugins_cli import main

if __name__ == "__main__":
    main("check")
