"""`gradtoken serve`: the web app."""

from __future__ import annotations

import signal
import threading
from typing import Annotated, Any

import typer
from rich.markup import escape

from gradtoken.cli import options as shared
from gradtoken.cli.app import app, console, problems

EXAMPLES = """
Examples:

- `gradtoken serve`
- `gradtoken serve --model timm/vit_base_patch16_224 --port 8000`
- `GRADTOKEN_AUTH=user:password gradtoken serve --host 0.0.0.0 -m timm/vit_base_patch16_224`
"""


@app.command(epilog=EXAMPLES)
def serve(
    model: shared.ModelSpec = "demo",
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 for every network of this machine.")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Default: the first free one from 7860 on."),
    ] = None,
    share: Annotated[
        bool,
        typer.Option(
            "--share/--no-share", help="Also at a public address, through gradio's servers."
        ),
    ] = False,
    auth: Annotated[
        str | None,
        typer.Option(
            envvar="GRADTOKEN_AUTH",
            show_envvar=True,
            metavar="USER:PASSWORD",
            help="Ask visitors to log in. The variable keeps it out of the list of processes.",
        ),
    ] = None,
    requests_per_minute: Annotated[
        int,
        typer.Option(
            min=0,
            help="Of one address that is not this machine's; 0 for no limit. Raise it where many "
            "people come from one address.",
        ),
    ] = 600,
    checkpoint: shared.Checkpoint = None,
    device: shared.Device = None,
    dtype: shared.Dtype = None,
    random_weights: shared.RandomWeights = False,
    image_size: shared.ImageSize = None,
    activation: shared.ActivationName = None,
) -> None:
    """Serve a web page that explains pictures class by class.

    Drop a picture, tick classes, and see their maps side by side. Pictures stay on this machine and
    are deleted after use. Stop it with Ctrl+C.
    """
    from gradtoken.app import serving
    from gradtoken.app.addresses import is_loopback
    from gradtoken.app.limits import Limits
    from gradtoken.app.server import read_login

    read_login(auth)
    loaded = shared.load_model(
        model, checkpoint, device, dtype, random_weights, image_size, activation
    )
    if auth is None and (share or not is_loopback(host)):
        problems.print(
            "[bold yellow]warning:[/] anybody who can reach this address can use the app and the "
            "machine it runs on; set --auth, or GRADTOKEN_AUTH, to ask for a login.",
            soft_wrap=True,
        )
    limits = Limits(requests_per_minute=requests_per_minute or None)
    stop = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        with serving(
            loaded, host=host, port=port, share=share, auth=auth, limits=limits
        ) as address:
            console.print(f"gradtoken serves {escape(model)} at {address}", soft_wrap=True)
            console.print("Stop it with Ctrl+C.")
            _wait(stop)
    finally:
        signal.signal(signal.SIGTERM, before)
    console.print("stopped; uploaded pictures are deleted.")


def _wait(stop: Any) -> None:
    try:
        while not stop.wait(1):
            pass
    except KeyboardInterrupt:
        return
