"""Why a score is what it is: computed after a run from the predictions that it saved.

The evaluation of a training pays nothing for it. ``tools/report.py RUN --explain`` calls it.
"""

from .instances import explain_instances

__all__ = ["explain_instances"]
