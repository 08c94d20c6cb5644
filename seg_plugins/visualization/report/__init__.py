"""``report.html``: one self-contained page about a run, or about several side by side.

It is made from the files of the run folders alone; see :mod:`.run` for those it looks for.
"""

from .page import build_page
from .run import Run, read_run
from .seeds import by_seed, seed_tables
from .tables import Table

__all__ = ["Run", "Table", "build_page", "by_seed", "read_run", "seed_tables"]
