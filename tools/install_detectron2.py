#!/usr/bin/env python
"""Install Detectron2: the command `seg-plugins install-detectron2`, in a checkout."""

import sys
from pathlib import Path

# The package itself is installed after Detectron2.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from seg_plugins_cli import main

if __name__ == "__main__":
    main("install-detectron2")
