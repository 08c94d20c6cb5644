"""``report.html``: one self-contained page about a run, or about several side by side.

It is made from the files of the run folders alone; see :mod:`.run` for those it looks for.
"""

from .page import build_page
from .run import Run, read_run

__all__ = ["Run", "build_page", "read_run"]
