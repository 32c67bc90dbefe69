"""The admin port: operators and their tools are answered, by twisted.web (docs/operations/health.md#the-admin-port).

1. Nothing here changes anything: GET and HEAD, and one POST, by which a browser shows the token.
2. Who may look is for `viewers` to say, what there is to see for `pages`, which are the daemon's or another process's.
   No page of another origin can read or embed an answer.
3. Connections are bounded in number, so that a flood of them takes no file that a client could have; and so is what is
   kept of a request.
4. No byte of a request is repeated in an answer or a log.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, cast
from urllib.parse import parse_qsl

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime, IStreamServerEndpoint
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure
from twisted.web.http import HTTPFactory, Request

from marketfeed.api.page import NOTHING, Page
from marketfeed.api.probes import LOGIN, Probes
from marketfeed.api.viewers import COOKIE, Viewers
from marketfeed.runtime.listener import Listener
from marketfeed.runtime.logs import Log

__all__ = ["AdminSite", "Bounded", "admin_listener"]

_MOST = 50
"""Connections at a time."""
_IDLE_SECONDS = 60
_MOST_BODY = 1024
_HEADERS = (
    ("Server", "marketfeed"),
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
)

_METHOD = Page(b"expected GET\n", status=405, headers=(("Allow", "GET, HEAD"),))
_HOST = Page(b"this server has another name; --admin-host admits one\n", status=421)
_NO_TOKEN = Page(
    b"a token is needed: Authorization: Bearer, and what is in --admin-token-file\n",
    status=401,
    headers=(("WWW-Authenticate", "Bearer"),),
)
_ELSEWHERE = Page(b"only for who is on this host; --admin-token-file lets others in\n", status=403)
_TOO_MANY = Page(b"too many wrong tokens; try again later\n", status=429, headers=(("Retry-After", "1"),))
_FAULT = Page(b"internal error\n", status=500)

_log = Log()


class _Request(Request):
    """One request. `site` is who made it."""

    def __init__(self, channel: Any, queued: bool = False) -> None:
        super().__init__(channel, queued)
        self.site: AdminSite = channel.factory
        self._body = BytesIO()
        self._is_gone = False

    def gotLength(self, length: int | None) -> None:
        self.content = self._body

    def handleContentChunk(self, data: bytes) -> None:
        self._body.write(data[: max(0, _MOST_BODY - self._body.tell())])

    def connectionLost(self, reason: Failure) -> None:
        self._is_gone = True
        super().connectionLost(reason)  # type: ignore[no-untyped-call]

    def process(self) -> None:
        Deferred.fromCoroutine(self._process())

    async def _process(self) -> None:
        try:
            found = self._page()
            page = await found if isinstance(found, Deferred) else found
        except Exception:
            _log.failure("the admin port: internal error")
            page = _FAULT
        if not self._is_gone:
            self._answer(page)

    def _answer(self, page: Page) -> None:
        asked = cast(Any, self)
        asked.setResponseCode(page.status)
        for name, value in (*_HEADERS, *page.headers):
            asked.setHeader(name, value)
        asked.setHeader("Content-Type", page.media)
        asked.setHeader("Content-Length", str(len(page.body)))
        asked.write(page.body)
        asked.finish()

    def _page(self) -> Page | Deferred[Page]:
        asked, pages, viewers = cast(Any, self), self.site.pages, self.site.viewers
        if not viewers.is_ours(self.getHeader("host") or "", getattr(asked.getHost(), "host", "")):
            return _HOST
        path = self.path.decode("latin-1")
        if self.method == b"POST" and path == LOGIN and viewers.has_token:
            return self._login()
        if self.method not in (b"GET", b"HEAD"):
            return _METHOD
        if not pages.is_open(path) and not self._may_look():
            if not viewers.has_token:
                return _ELSEWHERE
            return pages.login if pages.is_for_people(path) else _NO_TOKEN
        answer = pages.find(path)
        if answer is None:
            return NOTHING
        return answer(dict(parse_qsl(self.uri.partition(b"?")[2].decode("latin-1"), keep_blank_values=True)))

    def _may_look(self) -> bool:
        peer = getattr(cast(Any, self).getClientAddress(), "host", None)
        headers = {name: self.getHeader(name) for name in ("authorization", "forwarded", "x-forwarded-for")}
        shown = {name: value for name, value in headers.items() if value is not None}
        cookie = cast(Any, self).getCookie(COOKIE.encode()) or b""
        return self.site.viewers.may_look(peer, shown, cookie.decode("latin-1"))

    def _login(self) -> Page:
        viewers = self.site.viewers
        fields = dict(parse_qsl(self._body.getvalue().decode("latin-1")))
        is_token = viewers.admits(fields.get("token", "").strip().encode("latin-1"))
        if is_token is None:
            return _TOO_MANY
        if not is_token:
            return self.site.pages.login_again
        secure = "; Secure" if cast(Any, self).isSecure() else ""
        cookie = f"{COOKIE}={viewers.cookie}; Path=/; HttpOnly; SameSite=Strict{secure}"
        return Page(b"", status=303, headers=(("Location", "/"), ("Set-Cookie", cookie)))


class AdminSite(HTTPFactory):
    """What listens on the admin port, within `Bounded`."""

    noisy = False
    log: Any = staticmethod(lambda request: None)  # or every request would be a line

    def __init__(self, clock: IReactorTime, pages: Probes, viewers: Viewers) -> None:
        super().__init__(timeout=_IDLE_SECONDS, reactor=clock)
        self.pages = pages
        self.viewers = viewers

    def startFactory(self) -> None:
        """There is no log of requests to open."""

    def stopFactory(self) -> None:
        """Nor to close."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        protocol: Any = super().buildProtocol(addr)
        protocol.requestFactory = _Request
        return protocol


class Bounded(WrappingFactory):
    """Lets `_MOST` connections in at a time; any further one is ended at once."""

    noisy = False

    def __init__(self, site: AdminSite) -> None:
        super().__init__(site)  # type: ignore[no-untyped-call]

    def buildProtocol(self, addr: Any) -> Any:
        return None if len(self.protocols) >= _MOST else super().buildProtocol(addr)


def admin_listener(
    clock: IReactorTime,
    endpoint: IStreamServerEndpoint,
    description: str,
    pages: Probes,
    viewers: Viewers,
    *,
    is_needed: bool = True,
) -> Listener:
    """The port that `description`, the value of --admin, means. `is_needed`: the process does not start without it."""
    site = Bounded(AdminSite(clock, pages, viewers))
    return Listener(endpoint, site, description, option="--admin", name="admin", is_needed=is_needed)
