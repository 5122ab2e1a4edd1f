"""Metrics of relevance maps: tensors in, tensors out.

Metrics whose module has their own name are imported from there: `grid_pointing`, `saco`,
`single_deletion` (also for IDSDS), `road`, `max_sensitivity`, `f_fidelity`.
"""

from gradtoken.images.fills import filled
from gradtoken.images.patch_grid import to_pixels
from gradtoken.metrics.bootstrap import Interval, mean_interval
from gradtoken.metrics.class_sensitivity import (
    contrast_response,
    correlation,
    painted_out,
    present_coupling,
)
from gradtoken.metrics.insertion_deletion import area, deletion, insertion
from gradtoken.metrics.localization import Coverage, energy, pointing, share, token_ap
from gradtoken.metrics.paired import Pairing, holm, swap_tests
from gradtoken.metrics.perturbation import (
    PerturbationProtocol,
    Perturbed,
    abpc,
    aopc,
    log_odds,
    perturb,
)
from gradtoken.metrics.relevance_accuracy import mass_accuracy, rank_accuracy
from gradtoken.metrics.sanity import (
    Stage,
    cascading_randomisation,
    input_shift,
    rank_correlation,
)
from gradtoken.metrics.segmentation import Overlap, average_precision, overlap

__all__ = [
    "Coverage",
    "Interval",
    "Overlap",
    "Pairing",
    "PerturbationProtocol",
    "Perturbed",
    "Stage",
    "abpc",
    "aopc",
    "area",
    "average_precision",
    "cascading_randomisation",
    "contrast_response",
    "correlation",
    "deletion",
    "energy",
    "filled",
    "holm",
    "input_shift",
    "insertion",
    "log_odds",
    "mass_accuracy",
    "mean_interval",
    "overlap",
    "painted_out",
    "perturb",
    "pointing",
    "present_coupling",
    "rank_accuracy",
    "rank_correlation",
    "share",
    "swap_tests",
    "to_pixels",
    "token_ap",
]
