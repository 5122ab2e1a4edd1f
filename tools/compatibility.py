"""Make docs/compatibility.md: `check` run on many architectures with random weights.

    python tools/compatibility.py

Nothing is downloaded. It takes some minutes and a few GB of memory.
"""

from __future__ import annotations

import argparse
import gc
from pathlib import Path

from rich.progress import track

from gradtoken.checking import WORKS, Check, check
from gradtoken.errors import GradTokenError
from gradtoken.models import load

SPECS = {
    "timm": """
        vit_tiny_patch16_224 vit_small_patch32_224 vit_base_patch16_224 vit_base_patch8_224
        vit_base_patch14_dinov2 vit_small_patch14_reg4_dinov2 vit_small_patch16_dinov3
        vit_medium_patch16_reg4_gap_256 vit_base_patch16_clip_224 vit_base_patch16_siglip_224
        vit_base_patch16_siglip_gap_224 vit_relpos_small_patch16_224
        vit_relpos_medium_patch16_cls_224 vit_srelpos_small_patch16_224
        vit_small_patch16_18x2_224 vit_small_patch16_rope_224 flexivit_small
        deit_tiny_patch16_224 deit_tiny_distilled_patch16_224 deit3_small_patch16_224
        beit_base_patch16_224 beitv2_base_patch16_224 eva02_tiny_patch14_224
        eva02_base_patch14_448 naflexvit_base_patch16_gap cait_xxs24_224 xcit_nano_12_p16_224
        pit_ti_224 pit_ti_distilled_224 swin_tiny_patch4_window7_224
        swinv2_tiny_window8_256 swinv2_cr_tiny_224 hiera_tiny_224 maxvit_tiny_tf_224
        vit_tiny_r_s16_p8_224 vitamin_small_224 convit_tiny levit_128s tnt_s_patch16_224
        twins_svt_small resnet50
        """,
    "hf": """
        vit deit vit_msn dinov2 dinov2_with_registers beit data2vec-vision ijepa clip siglip swin
        swinv2 hiera pvt_v2
        """,
    "torchvision": "vit_b_16 vit_b_32 vit_l_32 swin_t swin_v2_t maxvit_t",
    "open_clip": """
        ViT-B-32 ViT-B-16 ViT-L-14 ViT-B-16-SigLIP ViT-B-16-SigLIP2-256 coca_ViT-B-32
        EVA02-B-16 RN50 convnext_base
        """,
}
METHODS = ["gradtoken", "raw-attention", "rollout"]
"""GradToken, and the two that say whether the readout's and all tokens' attention can be read."""

YES, NO = "yes", "no"


def main() -> None:
    """Command line entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/compatibility.md"))
    args = parser.parse_args()
    names = [f"{family}/{name}" for family, text in SPECS.items() for name in text.split()]
    rows = [row_of(name) for name in track(names, "checking")]
    args.out.write_text(page(rows), encoding="utf-8")


def row_of(name: str) -> tuple[str, Check | str]:
    """What `check` says of a model, or why it refuses."""
    try:
        return name, check(load(name, device="cpu", pretrained=False), METHODS)
    except GradTokenError as error:
        return name, str(error)
    finally:
        gc.collect()


def page(rows: list[tuple[str, Check | str]]) -> str:
    """The page as Markdown."""
    columns = METHODS
    lines = [
        "# Compatibility",
        "",
        "Made by running every model, at its full size and with random weights:",
        "",
        "    python tools/compatibility.py",
        "",
        "`gradtoken check NAME` does the same for one model. Other sizes, input resolutions and",
        "pretrained weights of these architectures are read in the same way. `rollout` stands for",
        "all methods that follow attention from block to block: where it cannot work, they cannot",
        "either. Methods on pixels work on every model.",
        "",
        "| model | readout | blocks | attention calls | grid | other tokens | "
        + " | ".join(columns)
        + " |",
        "|---" * (6 + len(columns)) + "|",
    ]
    reasons: dict[str, list[str]] = {}
    refused = []
    for name, found in rows:
        if isinstance(found, str):
            refused.append(f"- **{name}**: {found}")
            continue
        marks = []
        for method in columns:
            verdict = found.methods[method]
            marks.append(YES if verdict == WORKS else NO)
            if verdict != WORKS:
                reasons.setdefault(verdict.replace(name, "…"), []).append(name)
        grid = "x".join(map(str, found.grid))
        cells = [name, found.readout, found.blocks, found.attention_calls, grid, found.prefix]
        lines.append("| " + " | ".join(map(str, [*cells, *marks])) + " |")
    lines += ["", "Why a method does not work on a model that others work on:", ""]
    lines += [f"- {reason} ({len(names)} of these models)" for reason, names in reasons.items()]
    lines += ["", "## Refused", "", *refused, ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
