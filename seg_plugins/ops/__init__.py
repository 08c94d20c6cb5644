"""Operators of the package: compiled where a compiler was there, with fallbacks where not."""

from .roi_align import BackendReport, backend_report, roi_align
from .roi_align_module import ROIAlign

__all__ = ["BackendReport", "ROIAlign", "backend_report", "roi_align"]
