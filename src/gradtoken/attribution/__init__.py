"""Attribution methods, one per file."""

from gradtoken.attribution.base import Method
from gradtoken.attribution.registry import make_method, methods

__all__ = ["Method", "make_method", "methods"]
