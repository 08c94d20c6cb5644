"""Operators of the package: compiled where a compiler was there, with fallbacks where not."""

from .roi_align import BackendReport, backend_report, roi_align

__all__ = ["BackendReport", "backend_report", "roi_align"]
