"""The pages for people: plain files, which a browser gets as they are. No build and no library: what is here is what
runs.

1. The status page is answered by the admin port alone. `page.js` asks for `/status.json` once a second, and `page.html`
   is all that it fills in.
2. The market page is what is in `market/`, and `market/client/` is the JavaScript client itself, not a copy of it. A
   file is answered at `/market/` by its path in there, so that imports are the same on disk; `index.html` at `/`.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

__all__ = ["FILES", "MARKET", "MARKET_PAGE", "read"]

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

_MEDIA = {".css": _CSS, ".js": _JS, ".svg": "image/svg+xml"}
MARKET_PAGE = ("market/index.html", _HTML)
"""The market page itself, as `FILES` has one."""


def _market() -> dict[str, tuple[str, str]]:
    found = {}
    for folder in ("market", "market/client"):
        for file in files(__package__).joinpath(folder).iterdir():
            name = f"{folder}/{file.name}"
            media = _MEDIA.get(f".{file.name.rpartition('.')[2]}")
            if media is not None:
                found[f"/{name}"] = (name, media)
    return found


MARKET = _market()
"""The files that the market page loads, as `FILES` has them."""


@cache
def read(name: str) -> bytes:
    """One of the files, by its name in the tables above."""
    return files(__package__).joinpath(name).read_bytes()
