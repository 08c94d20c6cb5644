"""Why a score is what it is: computed after a run from the predictions that it saved.

The evaluation of a training pays nothing for it. ``tools/report.py RUN --explain`` calls it.
"""

from .instances import explain_instances
from .panoptic import explain_panoptic
from .saved import SavedRun
from .semantic import explain_semantic

__all__ = ["SavedRun", "explain_instances", "explain_panoptic", "explain_semantic"]
