"""One HTML file about many pictures: maps to look at, numbers to sort by, no network."""

from gradtoken.report.report import Report

__all__ = ["Report"]
