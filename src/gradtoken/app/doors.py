"""Which requests get through to gradio: those that the page and its clients need."""

from __future__ import annotations

import re

_NAME = "[A-Za-z0-9_.-]{1,64}"
_READ = re.compile(
    "/|/config/?|/favicon\\.ico|/manifest\\.json|/robots\\.txt|/theme\\.css|/logout"
    "|/(static|assets)/.+"
    "|/gradio_api/(app_id|info|login_check|startup-events|token|user)/?"
    "|/gradio_api/(queue/data|theme\\.css)"
    f"|/gradio_api/heartbeat/{_NAME}|/gradio_api/call/{_NAME}/{_NAME}"
)
_SENT = re.compile(
    f"/login/?|/gradio_api/(queue/join|upload|cancel|reset/?)|/gradio_api/call/{_NAME}/?"
)


def is_open(method: str, path: str) -> bool:
    """Whether a request is one that the page needs.

    gradio also answers others: it fetches addresses, gives away files and sessions, keeps
    recordings and the names of uploads whose progress is asked for, and runs functions past the
    queue.
    """
    wanted = {"GET": _READ, "HEAD": _READ, "POST": _SENT}.get(method)
    return wanted is not None and wanted.fullmatch(path) is not None


def is_upload(path: str) -> bool:
    """Whether a request to a path brings a file."""
    return path == "/gradio_api/upload"
