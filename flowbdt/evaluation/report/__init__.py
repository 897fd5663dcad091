"""Reports: scores, figures and tables as HTML pages that open without network, and as PDF."""

from __future__ import annotations

from .figures import demo_figure
from .published import read_published
from .sections import Content
from .write_pages import write_report, write_scores_page, write_together

__all__ = [
    "Content",
    "demo_figure",
    "read_published",
    "write_report",
    "write_scores_page",
    "write_together",
]
