"""Serving the page: where it listens, what it may send, and leaving nothing behind."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradtoken.app.arrivals import Arrivals
from gradtoken.app.guard import Guard
from gradtoken.app.memory import give_back
from gradtoken.app.rate import Rate
from gradtoken.app.unread import Unread
from gradtoken.app.workers import Workers
from gradtoken.errors import AppError

if TYPE_CHECKING:
    from gradtoken.app.callbacks import Callbacks
    from gradtoken.app.limits import Limits
    from gradtoken.models import Model

_SETTINGS = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(10**12),
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_HEARTBEAT_INTERVAL": "15",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}

_SWEEP_SECONDS = 10.0
_UNREAD_SECONDS = 30.0


@contextmanager
def serving(
    model: Model,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
    auth: str | None = None,
    limits: Limits | None = None,
) -> Iterator[str]:
    """Serve the app while the `with` lasts; yields its address.

    Uploads go to a folder of their own, which is deleted afterwards. A process serves one app at a
    time, because gradio takes that folder from the environment.

    Args:
        model: what is explained; it is tried on a bundled scene first.
        host: where to listen.
        port: where to listen; None is the first free one from 7860 on.
        share: also through a public address of gradio's.
        auth: "user:password" that visitors must give.
        limits: what is taken and kept.

    Raises:
        AppError: gradio is not installed, the port is taken, or the login is no user:password.
        ModelError: the model cannot be explained.
    """
    login = read_login(auth)
    _check_address(host, port)
    with (
        tempfile.TemporaryDirectory(prefix="gradtoken-app-") as folder,
        _environment(_SETTINGS | {"GRADIO_TEMP_DIR": folder}),
        Workers() as workers,
    ):
        _import_gradio()
        from gradtoken.app.asking import count_blocks
        from gradtoken.app.callbacks import Callbacks
        from gradtoken.app.layout import CSS, page, theme
        from gradtoken.app.limits import Limits
        from gradtoken.app.pictures import Uploads, scene_source

        chosen = limits or Limits()
        blocks = count_blocks(model, scene_source(0))
        arrivals = Arrivals(folder)
        callbacks = Callbacks(model, Uploads(Path(folder), chosen), chosen)
        app = page(callbacks, blocks, workers).queue(max_size=chosen.waiting, api_open=False)
        app.state_session_capacity = 4 * chosen.sessions
        try:
            served, local, public = app.launch(
                server_name=host,
                server_port=port,
                share=share,
                auth=login,
                prevent_thread_lock=True,
                quiet=True,
                footer_links=[],
                run_history=False,
                enable_monitoring=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                max_file_size=chosen.file_bytes,
                allowed_paths=[],
                state_session_capacity=4 * chosen.sessions,
                app_kwargs={
                    "middleware": [_middleware(chosen, arrivals)],
                    "lifespan": Unread(app._queue, _UNREAD_SECONDS).forgetting,
                    "docs_url": None,
                    "redoc_url": None,
                },
                theme=theme(),
                css=CSS,
            )
        except OSError as error:
            raise _cannot_listen(host, port, error) from None
        served.uploaded_file_dir = arrivals
        try:
            with _sweeping(callbacks):
                yield public or local
        finally:
            app.close(verbose=False)


def read_login(auth: str | None) -> tuple[str, str] | None:
    """User and password of "user:password".

    Raises:
        AppError: if it is something else.
    """
    if auth is None:
        return None
    user, colon, password = auth.partition(":")
    if not (user and colon and password):
        raise AppError("the login is not USER:PASSWORD; write it with a colon between.")
    return user, password


def _check_address(host: str, port: int | None) -> None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port or 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except OSError as error:
        raise _cannot_listen(host, port, error) from None


def _cannot_listen(host: str, port: int | None, error: OSError) -> AppError:
    where = f"{host}:{port}" if port else host
    return AppError(
        f"cannot listen on {where}: {error.strerror or error}; choose another --port or --host."
    )


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Variables that gradio reads, as they were afterwards."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _sweeping(callbacks: Callbacks) -> Iterator[None]:
    """Delete what is too old or not needed any more, every few seconds."""
    stop = threading.Event()

    def sweep() -> None:
        while not stop.wait(_SWEEP_SECONDS):
            callbacks.sweep()
            give_back()

    thread = threading.Thread(target=sweep, name="gradtoken-sweep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _import_gradio() -> None:
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise AppError(
            f'the web app needs gradio ({error}); pip install "gradtoken[app]".'
        ) from None
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _middleware(limits: Limits, arrivals: Arrivals) -> Any:
    from starlette.middleware import Middleware

    rate = Rate(limits.requests_per_minute)
    return Middleware(Guard, rate=rate, file_bytes=limits.file_bytes, arrivals=arrivals)
