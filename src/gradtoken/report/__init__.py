"""Reports: one self-contained HTML file with the maps and scores of many images."""

from gradtoken.report.report import Report

__all__ = ["Report"]
