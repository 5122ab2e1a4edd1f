"""ViT-CX: masks from a ViT's own features, weighted by the probability they leave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from gradtoken.attribution.base import NO_GRADIENT, Method
from gradtoken.attribution.options import check_fraction, check_number, check_seed
from gradtoken.attribution.pixels.rise import target_values
from gradtoken.attribution.widened import widened_if_narrow
from gradtoken.errors import MethodError
from gradtoken.precision import wide
from gradtoken.targets import Targets
from gradtoken.trace.graph import forward_with_graph
from gradtoken.trace.trace import Trace

_CHUNK = 64
"""Images that the model runs on at once."""


@dataclass(frozen=True, kw_only=True)
class ViTCX(Method):
    """R = sum_m s_m M_m / sum_m M_m, s_m = p(x * M_m + noise) - p(x + noise) + p(x).

    The masks are the channels of the spatial tokens as normalised before the last block's
    attention, each scaled to 0..1, and similar ones averaged (agglomerative clustering by cosine
    distance, average linkage). p is the probability of the target's class, or the score y of a
    target that is no class.

    Args:
        distance: cosine distance up to which masks are averaged.
        noise: standard deviation of the noise, in normalised values.
        seed: of the noise.
    """

    name: ClassVar[str] = "vit-cx"
    summary: ClassVar[str] = "clustered features as masks, weighted by the probability they leave"
    source: ClassVar[str] = "Xie et al., ViT-CX, IJCAI 2023"
    no_libra: ClassVar[str] = NO_GRADIENT
    slow: ClassVar[bool] = True
    trial: ClassVar[dict[str, Any]] = {"distance": 1.0}

    distance: float = 0.1
    noise: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_fraction(self, "distance")
        check_number(self, "noise")
        check_seed(self)

    def __call__(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        with widened_if_narrow(trace.model):
            return self._maps(trace, targets)

    def _maps(self, trace: Trace, targets: Targets) -> Float[Tensor, "batch targets patches"]:
        with forward_with_graph(trace, targets) as graph:
            tokens = trace.patch_grid.pick(wide(graph.norms.first().detach()), 1)
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(trace.images.shape[1:], generator=generator, dtype=torch.float32)
        noise = self.noise * noise.to(trace.images)
        maps = []
        with torch.no_grad():
            for b, image in enumerate(trace.images):
                masks = self.masks(tokens[b])
                own = Targets([targets.rows[b]])
                values = []
                for chunk in masks.unflatten(1, trace.grid).split(_CHUNK):
                    large = trace.patch_grid.enlarge(chunk)[:, None].to(image.dtype)
                    values.append(target_values(trace, own, image * large + noise))
                plain = target_values(trace, own, torch.stack([image + noise, image]))
                scores = torch.cat(values) - plain[0] + plain[1]
                covered = masks.sum(0).clamp_min(torch.finfo(masks.dtype).tiny)
                maps.append((scores.to(masks.dtype).T @ masks) / covered)
        return torch.stack(maps)

    def masks(self, tokens: Float[Tensor, "patches channels"]) -> Float[Tensor, "masks patches"]:
        """The masks of an image: its channels scaled to 0..1, similar ones averaged."""
        try:
            from sklearn.cluster import AgglomerativeClustering
        except ImportError:
            raise MethodError(
                "vit-cx clusters with scikit-learn, which is not installed; install "
                "gradtoken[bench]."
            ) from None
        channels = tokens.T
        low, high = channels.amin(1, keepdim=True), channels.amax(1, keepdim=True)
        scaled = (channels - low) / torch.where(high > low, high - low, 1)
        scaled = scaled[(high > low)[:, 0]]
        groups = AgglomerativeClustering(
            None, metric="cosine", linkage="average", distance_threshold=self.distance
        ).fit_predict(scaled.cpu().numpy())
        index = torch.from_numpy(groups).to(scaled.device)
        return torch.stack([scaled[index == g].mean(0) for g in range(int(index.max()) + 1)])
