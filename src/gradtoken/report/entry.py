"""The entry of an image in a report: a small copy, the tokens of its maps, its scores."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import matplotlib as mpl
import numpy as np
import torch

from gradtoken.errors import TargetError
from gradtoken.explanation import style as display
from gradtoken.explanation.evidence import evidence_of
from gradtoken.explanation.explanation import Explanation
from gradtoken.explanation.saving import token_array
from gradtoken.metrics.coupling import coupling

SIDE = 360
"""Pixels of the longer side of a report's images."""
_QUALITY = 82
_STEPS = 32767
"""Quantisation steps from 0 to a map's largest absolute relevance."""


def entry_of(explanation: Explanation) -> dict[str, Any]:
    """The values of the template `entry.html` for an explanation of one image."""
    source = explanation.sources[0]
    small, box = display.fitted(source.image, explanation.boxes[0], SIDE)
    record = explanation.to_dict()[0]
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    rows, columns = record["grid"]
    return {
        "name": source.name,
        "size": source.size,
        "picture": _text(buffer.getvalue()),
        "width": small.width,
        "height": small.height,
        "grid": f"{rows} {columns}",
        "box": " ".join(f"{edge:.4f}" for edge in box),
        "seen": " ".join(str(edge) for edge in box.visible(small.size)),
        "targets": [
            _target(values, target)
            for values, target in zip(token_array(explanation)[0], record["targets"], strict=True)
        ],
        "coupling": _coupling(explanation),
        "model": record["model"]["spec"],
        "method": record["method"]["name"],
        "manifest": json.dumps(record, indent=2, ensure_ascii=False),
    }


def colour_maps() -> dict[str, str]:
    """The 256 colours of positive and of signed maps, RGB bytes in base64."""
    names = {"positive": display.POSITIVE_MAP, "signed": display.SIGNED_MAP}
    levels = np.arange(256)
    return {
        kind: _text(mpl.colormaps[name](levels, bytes=True)[:, :3].tobytes())
        for kind, name in names.items()
    }


def _target(values: np.ndarray[Any, Any], record: dict[str, Any]) -> dict[str, Any]:
    """A map, quantised to 16 bits, and its scores."""
    tokens = torch.from_numpy(values)
    evidence = evidence_of(tokens)
    peak = float(np.abs(values).max())
    steps = np.round(values / peak * _STEPS) if peak else np.zeros_like(values)
    return {
        "label": record["label"],
        "kind": record["kind"],
        "score": record["score"],
        "probability": record["probability"],
        "peak": peak,
        "step": peak / _STEPS,
        "tokens": _text(steps.astype("<i2").tobytes()),
        "largest": float(values.max()),
        "smallest": float(values.min()),
        "sum": record["evidence"]["total"],
        "positive": record["evidence"]["positive"],
        "words": evidence.words(),
        "full": display.full_without_evidence(tokens),
    }


def _coupling(explanation: Explanation) -> float | None:
    """The coupling of an image's maps; None for a single target or a constant map."""
    try:
        return coupling(explanation)
    except TargetError:
        return None


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
