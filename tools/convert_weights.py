#!/usr/bin/env python
"""Convert weights of other libraries: the command `seg-plugins convert`, in a checkout."""

from seg_plugins_cli import main

if __name__ == "__main__":
    main("convert")
