#!/usr/bin/env python
"""Train, resume or evaluate: the command `seg-plugins train`, in a checkout."""

from seg_plugins_cli import main

if __name__ == "__main__":
    main("train")
