"""Targets: the scalar of a model's output that a map explains.

A target turns logits into a scalar y. Class ids and names, contrasts, log-probabilities and any
function of the output are targets; `Targets` holds the K targets of each of B images.
"""

from gradtoken.targets.base import Target
from gradtoken.targets.classes import Against, ClassTarget, Contrast, LogProb
from gradtoken.targets.finer import Finer, each_finer, finer, parse_finer
from gradtoken.targets.functions import OutputTarget
from gradtoken.targets.pending import contrast, log_prob, text
from gradtoken.targets.resolve import per_image, resolve, resolve_rows
from gradtoken.targets.rivals import Rivals, kind_for, parse_kind
from gradtoken.targets.targets import Targets
from gradtoken.targets.threshold import Above, above

__all__ = [
    "Above",
    "Against",
    "ClassTarget",
    "Contrast",
    "Finer",
    "LogProb",
    "OutputTarget",
    "Rivals",
    "Target",
    "Targets",
    "above",
    "contrast",
    "each_finer",
    "finer",
    "kind_for",
    "log_prob",
    "parse_finer",
    "parse_kind",
    "per_image",
    "resolve",
    "resolve_rows",
    "text",
]
