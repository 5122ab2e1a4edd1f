"""ViT-CX against its equation written out."""

from __future__ import annotations

import torch
from torch import Tensor

from gradtoken.attribution import make_method
from gradtoken.models import Model
from gradtoken.targets import resolve
from gradtoken.trace.record import record
from tests.attribution.pixels.by_hand import CLASSES, assert_each


def test_vit_cx_equals_equation(model: Model, batch: Tensor) -> None:
    from sklearn.cluster import AgglomerativeClustering

    method = make_method("vit-cx", distance=0.12, noise=0.2, seed=1)
    noise = 0.2 * torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(1)).double()
    trace = record(model, batch)
    maps = method(trace, resolve(CLASSES, trace.logits, model.labels))

    def by_hand(image: Tensor, label: int) -> Tensor:
        kept: list[Tensor] = []
        hook = model.module.blocks[-1].norm1.register_forward_hook(
            lambda _, args, out: kept.append(out[0, 1:])
        )
        plain = model(image[None]).softmax(-1)[0, label]
        hook.remove()
        scaled = torch.stack([(c - c.min()) / (c.max() - c.min()) for c in kept[0].T])
        groups = AgglomerativeClustering(
            None, metric="cosine", linkage="average", distance_threshold=0.12
        ).fit_predict(scaled.numpy())
        top, below = torch.zeros(64).double(), torch.zeros(64).double()
        shaken = model((image + noise)[None]).softmax(-1)[0, label]
        for group in sorted(set(groups)):
            mask = scaled[groups == group].mean(0)
            large = torch.nn.functional.interpolate(
                mask.view(1, 1, 8, 8), (64, 64), mode="bilinear"
            )[0]
            score = model((image * large + noise)[None]).softmax(-1)[0, label] - shaken + plain
            top, below = top + score * mask, below + mask
        assert 1 < len(set(groups)) < 48
        return top / below

    assert_each(model, batch, maps, by_hand)
