"""``python -m seg_plugins.ops``: which implementation of the operators runs here, and why.

The exit status is 1 where an extension was built and does not load.
"""

import sys

from . import backend_report
from ._extension import FILES, load_extension

if __name__ == "__main__":
    print(backend_report())
    sys.exit(any(file.exists() for file in FILES) and not load_extension().loaded)
