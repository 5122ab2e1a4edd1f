"""The page: which control calls what. What happens is in `callbacks.py`."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from gradtoken.app.asking import METHODS
from gradtoken.app.callbacks import Callbacks
from gradtoken.app.leftovers import check_inputs, drop_area
from gradtoken.app.maps import View
from gradtoken.app.markup import esc, message, photo_uri
from gradtoken.app.pictures import SCENES, scene
from gradtoken.app.wiring import BOTH, FOR, NOBODY, Controls, wire
from gradtoken.app.workers import Workers
from gradtoken.images.load_image import SUFFIXES

_HERE = Path(__file__).parent
_AT_FIRST = ["gradtoken", "gae", "legrad", "rollout"]
"""Methods to compare that are ticked at first."""

CSS = (_HERE / "style.css").read_text("utf-8")
_READ_PATCHES = (_HERE / "maps.js").read_text("utf-8")
_CHOOSE_SCENE = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) trigger("select", { index: Number(button.dataset.index) });
});"""


def theme() -> gr.themes.Base:
    """Fonts of the reader's own system, so that nothing is fetched; small text that can be read."""
    fonts = gr.themes.Default(
        font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    return fonts.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
    )


def page(callbacks: Callbacks, blocks: int, workers: Workers) -> gr.Blocks:
    """The page of an app.

    Args:
        callbacks: what the controls do.
        workers: the threads that do it.
        blocks: how many blocks can be chosen from; 0 for none.
    """
    model, limits = callbacks.model, callbacks.limits
    count, reads_text = len(model.labels), model.prompts is not None
    what = "prompts" if reads_text else "classes"
    with gr.Blocks(title="gradtoken", analytics_enabled=False) as app:
        with gr.Row():
            gr.Markdown(
                "# gradtoken\n**Why this class, and not that one?** "
                f"Asking `{model.spec}`, {_size(callbacks)}."
            )
            dark = gr.Button("Light or dark", size="sm", scale=0, min_width=140)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                upload = drop_area(
                    label=f"Drop a picture here (to {limits.file_bytes / 1e6:.0f} MB, "
                    f"{limits.pixels / 1e6:.0f} megapixels; deleted when read)",
                    file_types=sorted(SUFFIXES),
                    height=132,
                    elem_id="upload",
                )
                scenes = gr.HTML(
                    _scenes(), js_on_load=_CHOOSE_SCENE, elem_id="scenes", label="Bundled scenes"
                )
                prompts = gr.Textbox(
                    "a photo of a cat\na photo of a dog",
                    label=f"Prompts, one a line (at most {limits.prompts})",
                    lines=3,
                    visible=reads_text,
                    elem_id="prompts",
                )
                ask_prompts = gr.Button("Ask these prompts", visible=reads_text)
                query = gr.Textbox(
                    label="Search the prompts" if reads_text else f"Search all {count} classes",
                    placeholder="part of a name, or a number",
                    elem_id="search",
                )
                ticked = gr.CheckboxGroup([], label=f"Explain these {what}", elem_id="classes")
                with gr.Row():
                    a = gr.Dropdown(
                        [], label="Contrast: why A", elem_id="contrast-a", min_width=120
                    )
                    b = gr.Dropdown(
                        [NOBODY],
                        value=NOBODY[1],
                        label="and not B",
                        elem_id="contrast-b",
                        min_width=120,
                    )
            with gr.Column(scale=5, min_width=320):
                status = gr.HTML(
                    message("Drop a picture, or choose one of the scenes."), elem_id="status"
                )
                scenery = gr.HTML("", elem_id="scenery")
                maps = gr.HTML("", js_on_load=_READ_PATCHES, elem_id="maps")
                with gr.Row():
                    opacity = gr.Slider(0, 1, View.opacity, label="Opacity", elem_id="opacity")
                    threshold = gr.Slider(
                        0, 0.95, View.threshold, label="Threshold (of the largest)",
                        elem_id="threshold",
                    )  # fmt: skip
                    smoothing = gr.Slider(
                        0, 3, View.smoothing, label="Smoothing (patches)", elem_id="smoothing"
                    )
                with gr.Row():
                    first = gr.Slider(
                        1, max(blocks, 2), 1, step=1, label="First block that counts",
                        visible=blocks > 1, elem_id="first",
                    )  # fmt: skip
                    last = gr.Slider(
                        1, max(blocks, 2), max(blocks, 2), step=1, label="Last block that counts",
                        visible=blocks > 1, elem_id="last",
                    )  # fmt: skip
                    signed = gr.Radio([FOR, BOTH], value=FOR, label="Show", elem_id="signed")
                coupling = gr.HTML("", elem_id="coupling")
                with gr.Row():
                    download = gr.Button("Download maps, numbers and manifest", elem_id="download")
                    forget = gr.Button("Delete my picture", elem_id="forget")
                with gr.Accordion("Compare methods", open=False):
                    names = gr.CheckboxGroup(
                        list(METHODS), value=_AT_FIRST, label="Methods", elem_id="methods"
                    )
                    compare = gr.Button("Compare on the ticked classes", elem_id="compare")
                    compared = gr.HTML("", elem_id="compared")
        file = gr.JSON(visible="hidden")
        look = (opacity, threshold, smoothing, signed, first, last)
        controls = Controls(
            dark, upload, scenes, prompts, ask_prompts, query, ticked, a, b, status, scenery, maps,
            coupling, look, names, compare, compared, download, forget, file,
        )  # fmt: skip
        wire(app, controls, callbacks, workers)
    check_inputs(app, upload)
    return app


def _size(callbacks: Callbacks) -> str:
    model = callbacks.model
    if model.prompts is not None:
        return "which compares pictures with text"
    return f"{len(model.labels)} classes"


def _scenes() -> str:
    buttons = []
    for index in range(len(SCENES)):
        found = scene(index)
        small = found.image.copy()
        small.thumbnail((144, 144))
        label = f"Scene {index + 1} with {', '.join(found.names)}"
        buttons.append(
            f'<button type="button" data-index="{index}" aria-label="{esc(label)}" '
            f'title="{esc(label)}"><img alt="" src="{photo_uri(small)}"></button>'
        )
    return f'<div class="gt-scenes" role="group" aria-label="Scenes">{"".join(buttons)}</div>'
