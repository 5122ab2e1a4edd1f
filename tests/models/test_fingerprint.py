"""What tells one model from another of the same name."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import replace

import torch

import gradtoken
from gradtoken.models.fingerprint import preprocessing_sha256, weights_sha256
from tests.conftest import tiny_vit


def test_weights_sha256_depends_on_every_tensor() -> None:
    module = tiny_vit()
    module.register_buffer("kept", torch.arange(3))
    module.register_buffer("lost", torch.ones(2, 2), persistent=False)
    model = gradtoken.wrap(module)
    assert weights_sha256(model) == weights_sha256(gradtoken.wrap(copy.deepcopy(module)))
    seen = {weights_sha256(model)}
    tensors = [*module.named_parameters(), *module.named_buffers()]
    with torch.no_grad():
        for _, tensor in tensors:
            tensor.view(-1)[-1] += 1
            seen.add(weights_sha256(model))
    assert len(seen) == len(tensors) + 1
    assert weights_sha256(gradtoken.wrap(tiny_vit().float())) != weights_sha256(
        gradtoken.wrap(tiny_vit())
    )


def test_weights_sha256_by_hand() -> None:
    module = tiny_vit(depth=1)
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} torch.float64 {tuple(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    assert weights_sha256(gradtoken.wrap(module)) == digest.hexdigest()


def test_preprocessing_sha256_depends_on_output() -> None:
    model = gradtoken.wrap(tiny_vit())
    before = model.preprocess
    same = replace(before, transform=lambda image: before.transform(image))
    other = replace(before, transform=lambda image: before.transform(image) * 1.001)
    actual = [
        preprocessing_sha256(gradtoken.wrap(model.module, preprocess=p))
        for p in (before, same, other)
    ]
    assert actual[0] == actual[1] != actual[2]
