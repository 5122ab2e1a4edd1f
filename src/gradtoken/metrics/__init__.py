"""Figures of merit: tensors in, tensors out."""

from gradtoken.metrics.bootstrap import Interval, mean_interval
from gradtoken.metrics.localization import Coverage, energy, pointing, share, token_ap

__all__ = ["Coverage", "Interval", "energy", "mean_interval", "pointing", "share", "token_ap"]
