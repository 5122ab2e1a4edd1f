"""`gradtoken serve`: the web app."""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass, field
from typing import Annotated

import typer
from rich.markup import escape

from gradtoken.cli import options as shared
from gradtoken.cli.console import console, problems

EXAMPLES = """
Examples:

- `gradtoken serve`
- `gradtoken serve --model timm/vit_base_patch16_224 --port 8000`
- `GRADTOKEN_AUTH=user:password gradtoken serve --host 0.0.0.0 -m timm/vit_base_patch16_224`
"""


@dataclass(frozen=True)
class ServeOptions:
    """The options of `gradtoken serve`."""

    model: shared.ModelSpec = "demo"
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0 for every network of this machine.")
    ] = "127.0.0.1"
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Default: the first free one from 7860 on."),
    ] = None
    share: Annotated[
        bool,
        typer.Option(
            "--share/--no-share", help="Also at a public address, through gradio's servers."
        ),
    ] = False
    auth: Annotated[
        str | None,
        typer.Option(
            envvar="GRADTOKEN_AUTH",
            show_envvar=True,
            metavar="USER:PASSWORD",
            help="Ask visitors to log in. The variable keeps it out of the list of processes.",
        ),
    ] = None
    requests_per_minute: Annotated[
        int,
        typer.Option(
            min=0,
            help="Of one address that is not this machine's; 0 for no limit. Raise it where many "
            "people come from one address.",
        ),
    ] = 600
    loading: shared.ModelOptions = field(default_factory=shared.ModelOptions)


def run(options: ServeOptions) -> None:
    """Serve a web page that explains images class by class.

    Drop an image, tick classes, and see their maps side by side. Images stay on this machine and
    are deleted after use. Stop it with Ctrl+C.
    """
    from gradtoken.app import serving
    from gradtoken.app.addresses import is_loopback
    from gradtoken.app.limits import Limits
    from gradtoken.app.server import read_login

    host, share, auth = options.host, options.share, options.auth
    read_login(auth)
    model = options.loading.load(options.model)
    if auth is None and (share or not is_loopback(host)):
        problems.print(
            "[bold yellow]warning:[/] anybody who can reach this address can use the app and the "
            "machine it runs on; set --auth, or GRADTOKEN_AUTH, to ask for a login.",
            soft_wrap=True,
        )
    limits = Limits(requests_per_minute=options.requests_per_minute or None)
    stop = threading.Event()
    handler = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    try:
        with serving(
            model, host=host, port=options.port, share=share, auth=auth, limits=limits
        ) as address:
            console.print(f"gradtoken serves {escape(options.model)} at {address}", soft_wrap=True)
            console.print("Stop it with Ctrl+C.")
            wait_for(stop)
    finally:
        signal.signal(signal.SIGTERM, handler)
    console.print("stopped; uploaded images are deleted.")


def wait_for(stop: threading.Event) -> None:
    """Return when the event is set or the user interrupts."""
    try:
        while not stop.wait(1):
            pass
    except KeyboardInterrupt:
        return
