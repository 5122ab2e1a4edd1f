"""The web app of `gradtoken serve`: it composes the library and holds no algorithm.

`callbacks.py` is the app without a page, `layout.py` and `wiring.py` its page, and
`server.py` serves it.
"""

from gradtoken.app.server import serving

__all__ = ["serving"]
