"""A timm ViT written out plainly, one token and one head at a time: the tests' reference.

Nothing of gradtoken is used here. `Written` runs a module's weights through equations; `stream`
lets the class token alone run through the blocks while every other token's keys and values stay as
they were.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass
class Block:
    """What one block did: attention (H, N, N), values (H, N, d), outputs (H, N, d), tokens (N, D).

    `scores` is attention before the softmax; `normed` what its attention is computed from.
    """

    attention: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    entering: Tensor
    scores: Tensor
    normed: Tensor
    middle: Tensor
    leaving: Tensor


@dataclass
class Written:
    module: torch.nn.Module
    image: Tensor

    def embed(self) -> Tensor:
        module = self.module
        patches = module.patch_embed(self.image[None])
        return module.norm_pre(module._pos_embed(patches))[0]

    def heads(self, block: torch.nn.Module, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        attn = block.attn
        width = attn.head_dim
        mixed = F.linear(normed, attn.qkv.weight, attn.qkv.bias)
        q, k, v = (
            part.view(len(normed), attn.num_heads, width).transpose(0, 1)
            for part in mixed.chunk(3, dim=-1)
        )
        return attn.q_norm(q), attn.k_norm(k), v

    def projected(self, block: torch.nn.Module, output: Tensor) -> Tensor:
        """What heads' outputs (H, N, d) add to the tokens (N, D)."""
        return block.ls1(block.attn.proj(output.transpose(0, 1).flatten(1)))

    def norm(self, layer: torch.nn.Module, tokens: Tensor) -> Tensor:
        return layer(tokens)

    def softmax(self, scores: Tensor) -> Tensor:
        return scores.softmax(dim=-1)

    def through_mlp(self, block: torch.nn.Module, tokens: Tensor) -> Tensor:
        return tokens + block.ls2(block.mlp(block.norm2(tokens)))

    def after(self, block: torch.nn.Module, tokens: Tensor, output: Tensor) -> Tensor:
        return self.through_mlp(block, tokens + self.projected(block, output))

    def logits(self, tokens: Tensor) -> Tensor:
        return self.module.head(self.norm(self.module.norm, tokens)[0])

    def forward(
        self,
        extra: list[Tensor] | None = None,
        normed_last: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[list[Block], Tensor]:
        """All blocks, and the logits; `extra[l]` (H, d) is added to what block l gives row 0.

        `normed_last` changes what the last block's attention is computed from.
        """
        tokens, blocks = self.embed(), []
        for index, block in enumerate(self.module.blocks):
            normed = self.norm(block.norm1, tokens)
            if normed_last is not None and index == len(self.module.blocks) - 1:
                normed = normed_last(normed)
            q, k, v = self.heads(block, normed)
            scale = math.sqrt(q.shape[-1])
            scores = torch.stack([q[head] @ k[head].T / scale for head in range(len(q))])
            attention = self.softmax(scores)
            output = torch.stack([attention[head] @ v[head] for head in range(len(v))])
            if extra is not None:
                output = torch.cat([output[:, :1] + extra[index][:, None], output[:, 1:]], dim=1)
            middle = tokens + self.projected(block, output)
            leaving = self.through_mlp(block, middle)
            blocks.append(Block(attention, k, v, output, tokens, scores, normed, middle, leaving))
            tokens = leaving
        return blocks, self.logits(tokens)

    def attention_gradients(self, label: int) -> tuple[list[Block], list[Tensor]]:
        """The blocks, and dy/dA (H, N, N) of each."""
        blocks, logits = self.forward()
        found = torch.autograd.grad(logits[label], [b.attention for b in blocks])
        return blocks, list(found)

    def stream(self, context: list[Block], extra: list[Tensor]) -> Tensor:
        """Logits of the class token alone among the other tokens' frozen keys and values."""
        token = context[0].entering[:1]
        for block, frozen, added in zip(self.module.blocks, context, extra, strict=True):
            q, k, v = self.heads(block, block.norm1(token))
            keys = torch.cat([k, frozen.key[:, 1:].detach()], dim=1)
            values = torch.cat([v, frozen.value[:, 1:].detach()], dim=1)
            attention = (q @ keys.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1)
            output = attention @ values + added[:, None]
            token = self.after(block, token, output)
        return self.logits(token)

    def gradients(self, score: object, *, full: bool) -> tuple[list[Block], list[Tensor]]:
        """gamma (H, d) per block: the gradient of score(logits) by what each head writes."""
        context, _ = self.forward()
        extra = [torch.zeros_like(b.output[:, 0]).requires_grad_() for b in context]
        logits = self.forward(extra)[1] if full else self.stream(context, extra)
        return context, list(torch.autograd.grad(score(logits), extra))
