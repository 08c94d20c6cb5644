#!/usr/bin/env python
"""Write report.html: the command `seg-plugins report`, in a checkout."""

from seg_plugins_cli import main

if __name__ == "__main__":
    main("report")
