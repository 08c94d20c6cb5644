"""Operators of the package: compiled where a compiler was there, with fallbacks where not."""

from .roi_align_module import ROIAlign
from .roi_align_operator import BackendReport, backend_report, roi_align

__all__ = ["BackendReport", "ROIAlign", "backend_report", "roi_align"]
