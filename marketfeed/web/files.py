"""The status page: plain files, which a browser gets as they are, from the admin port alone.

No build and no library: what is here is what runs. `page.js` asks for `/status.json` once a second, and `page.html` is
all that it fills in.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

__all__ = ["FILES", "read"]

_HTML, _CSS, _JS = "text/html; charset=utf-8", "text/css; charset=utf-8", "text/javascript; charset=utf-8"

FILES = {
    "/": ("page.html", _HTML),
    "/page.css": ("page.css", _CSS),
    "/page.js": ("page.js", _JS),
    "/charts.js": ("charts.js", _JS),
    "/format.js": ("format.js", _JS),
    "/workers.js": ("workers.js", _JS),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""By path: the file, and its Content-Type."""


@cache
def read(name: str) -> bytes:
    """One of the files."""
    return files(__package__).joinpath(name).read_bytes()
