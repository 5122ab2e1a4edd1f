"""Small seeded models and pictures that the tests share, and how workers share the machine."""

from __future__ import annotations

import os
import signal

if "PYTEST_XDIST_WORKER" in os.environ:  # a worker for each core, and one thread for each worker
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

import numpy as np
import pytest
import torch
from PIL import Image
from timm.models.vision_transformer import VisionTransformer

import gradtoken
from gradtoken.models import Model


def pytest_configure() -> None:
    """What a shell runs in the background ignores SIGINT: not so the commands started here."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first: workers that take up what is left then end together."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def tiny_vit(seed: int = 0, **options: object) -> VisionTransformer:
    """A seeded float64 ViT: 64 px, 8x8 tokens, 4 blocks of width 48, 10 classes."""
    settings = {
        "img_size": 64,
        "patch_size": 8,
        "embed_dim": 48,
        "depth": 4,
        "num_heads": 3,
        "num_classes": 10,
        **options,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = VisionTransformer(**settings)
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=0.15)
                else:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return module.double().eval()


VARIANTS = {
    "plain": {},
    "registers": {"reg_tokens": 4},
    "layer scale, qk norm, pre norm": {"init_values": 0.3, "qk_norm": True, "pre_norm": True},
    "no class position": {"no_embed_class": True, "reg_tokens": 2},
    "not square": {"img_size": (64, 40)},
}


@pytest.fixture(params=list(VARIANTS), ids=list(VARIANTS))
def variant(request: pytest.FixtureRequest) -> Model:
    """Every layout a timm ViT with a class token can have."""
    return gradtoken.wrap(tiny_vit(**VARIANTS[request.param]))


@pytest.fixture
def model() -> Model:
    return gradtoken.wrap(tiny_vit())


@pytest.fixture
def batch() -> torch.Tensor:
    return images_for((64, 64))


def images_for(size: tuple[int, int], count: int = 2) -> torch.Tensor:
    """A seeded batch of noise, float64 (count, 3, height, width)."""
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1)).double()


def inputs(model: Model, count: int = 2) -> torch.Tensor:
    return images_for(model.module.patch_embed.img_size, count)


@pytest.fixture
def picture() -> Image.Image:
    """An image wider than high, with something in it."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((90, 60), Image.Resampling.BICUBIC)
