"""The admin port: what is answered to whom, and that nothing else can be had of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from marketfeed.api.admin import AdminSite, Bounded
from marketfeed.api.page import HTML, Page
from marketfeed.api.pages import Pages
from marketfeed.api.viewers import COOKIE, Viewers
from tests.conftest import LogCapture

TOKEN = b"0123456789abcdef"
HERE = IPv4Address("TCP", "127.0.0.1", 5000)
ELSEWHERE = IPv4Address("TCP", "10.9.9.9", 5000)


class FakePages(Pages):
    """Some of what there is; the rest of it is tested where it is made."""

    def __init__(self) -> None:
        self.login = Page(b"the form", HTML, 401)
        self.login_again = Page(b"the form, again", HTML, 401)
        self.late: Deferred[Page] = Deferred()
        self._answers = {
            "/": lambda query: Page(b"here\n"),
            "/metrics": lambda query: Page(b"numbers"),
            "/broken": lambda query: 1 // 0,
            "/json": lambda query: Page(json.dumps(query).encode(), "application/json", 503),
            "/late": lambda query: self.late,
        }

    def _detail(self, path: str) -> None:
        """There is none."""


class Port:
    """A site, and connections to it, from `peer`."""

    def __init__(self, *hosts: str, address: Any = None, peer: Any = HERE, token: bytes = b"") -> None:
        self.clock = Clock()
        self.pages = FakePages()
        self.site = AdminSite(self.clock, self.pages, Viewers(self.clock, hosts, token))
        self.factory = Bounded(self.site)
        self.factory.doStart()
        self.address = address or IPv4Address("TCP", "10.0.0.7", 8081)
        self.peer = peer

    def connect(self) -> tuple[Any, StringTransport] | None:
        protocol = self.factory.buildProtocol(self.address)
        if protocol is None:
            return None
        transport = StringTransport(hostAddress=self.address, peerAddress=self.peer)
        protocol.makeConnection(transport)
        return protocol, transport

    def ask(
        self, path: str = "/", host: str = "localhost:8081", method: str = "GET", body: bytes = b"", **headers: str
    ) -> Answer:
        connected = self.connect()
        assert connected is not None
        protocol, transport = connected
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        protocol.dataReceived("\r\n".join([*lines, "", ""]).encode() + body)
        return Answer(transport.value())


class Answer:
    """One answer, taken apart."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        self.status = int(status.split()[1])
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}


def test_an_answer() -> None:
    answer = Port().ask()
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"here\n", "text/plain; charset=utf-8")
    assert (answer.headers["server"], answer.headers["cache-control"]) == ("marketfeed", "no-store")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert not any(name.startswith("access-control") for name in answer.headers)
    assert answer.headers["content-length"] == "5"


def test_a_status_and_a_type_of_its_own() -> None:
    answer = Port().ask("/json?since=1&q=a%20b&since=")
    assert (answer.status, answer.headers["content-type"]) == (503, "application/json")
    assert json.loads(answer.body) == {"since": "", "q": "a b"}


def test_head_has_no_body() -> None:
    answer = Port().ask(method="HEAD")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "5")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "NONSENSE"])
def test_nothing_can_be_changed(method: str) -> None:
    answer = Port().ask(method=method, body=b"x" * 200_000)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_there_is_nothing_else() -> None:
    answer = Port().ask("/<script>")
    assert (answer.status, answer.body) == (404, b"there is nothing here\n")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:8081", "[::1]", "[::1]:8081", "10.0.0.7", "10.0.0.7:80"]
)
def test_names_that_are_ours(host: str) -> None:
    assert Port().ask(host=host).status == 200


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:8081", "localhost.evil.example", "10.0.0.8", "127.0.0.1.nip.io", "[::2]", "::"],
)
def test_a_page_whose_name_leads_here_reads_nothing(host: str) -> None:
    """DNS rebinding: a browser sends the name that the page has."""
    answer = Port("feed.example").ask(host=host)
    assert (answer.status, b"here" in answer.body) == (421, False)


@pytest.mark.parametrize("name", ["feed.example", "Feed.Example", "fd00::7"])
def test_names_that_the_operator_gives(name: str) -> None:
    host = f"[{name}]" if ":" in name else name
    assert Port(name).ask(host=f"{host}:8081").status == 200


def test_an_address_that_ipv6_spells_in_its_way() -> None:
    mapped = IPv4Address("TCP", "::ffff:10.0.0.7", 8081)
    assert Port(address=mapped).ask(host="10.0.0.7").status == 200


def test_a_unix_socket_has_no_address() -> None:
    port = Port(address=UNIXAddress(b"/run/admin.sock"), peer=UNIXAddress(b""))
    assert (port.ask().status, port.ask(host="").status) == (200, 421)


def test_a_fault_of_ours_is_an_answer(logged: LogCapture) -> None:
    answer = Port().ask("/broken")
    assert (answer.status, answer.body) == (500, b"internal error\n")
    assert len(logged.flush_failures(ZeroDivisionError)) == 1


def test_an_answer_that_takes_a_while() -> None:
    """Who has gone before it comes is not written to."""
    port = Port()
    connections = [port.connect(), port.connect()]
    for connected in connections:
        assert connected is not None
        connected[0].dataReceived(b"GET /late HTTP/1.1\r\nHost: localhost\r\n\r\n")
    (_, transport), (gone, silent) = [each for each in connections if each is not None]
    gone.connectionLost(Failure(ConnectionDone()))
    assert transport.value() == b""
    late, port.pages.late = port.pages.late, Deferred()
    late.callback(Page(b"at last"))
    assert transport.value().endswith(b"at last")
    assert silent.value() == b""


# Who may look.


def test_who_is_elsewhere_sees_what_shows_no_client() -> None:
    port = Port(peer=ELSEWHERE)
    assert port.ask("/metrics").status == 200
    for path in ("/", "/json", "/nothing"):
        answer = port.ask(path)
        assert (answer.status, b"--admin-token-file" in answer.body) == (403, True)


def test_what_came_through_a_proxy_came_from_elsewhere() -> None:
    assert Port().ask("/json").status == 503
    assert Port().ask("/json", X_Forwarded_For="10.1.1.1").status == 403
    assert Port().ask("/json", Forwarded="for=10.1.1.1").status == 403


def test_a_token_lets_others_look() -> None:
    port = Port(peer=ELSEWHERE, token=TOKEN)
    assert port.ask("/json", Authorization=f"Bearer {TOKEN.decode()}").status == 503
    answer = port.ask("/json", Authorization="Bearer 0123456789abcdeF")
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert port.ask("/json").status == 401
    form = port.ask("/")
    assert (form.status, form.body, form.headers["content-type"]) == (401, b"the form", HTML)


def test_a_browser_shows_the_token_once() -> None:
    """From then on its cookie does; with another token that is worth nothing."""
    port = Port(peer=ELSEWHERE, token=TOKEN)
    assert port.ask("/login", method="POST", body=b"token=wrong").body == b"the form, again"
    answer = port.ask("/login", method="POST", body=b"token=+0123456789abcdef%0A")
    assert (answer.status, answer.headers["location"]) == (303, "/")
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert set(attributes) == {"Path=/", "HttpOnly", "SameSite=Strict"}
    assert TOKEN.decode() not in cookie
    assert port.ask("/", Cookie=f"other=1; {cookie}").body == b"here\n"
    assert port.ask("/", Cookie=f"{COOKIE}=x").status == 401
    assert Port(peer=ELSEWHERE, token=b"another token, fed").ask("/", Cookie=cookie).status == 401
    assert Port(peer=ELSEWHERE).ask("/", Cookie=cookie).status == 403


def test_without_a_token_there_is_no_form() -> None:
    assert Port().ask("/login", method="POST", body=b"token=").status == 405


def test_tokens_are_not_tried_out() -> None:
    port = Port(peer=ELSEWHERE, token=TOKEN)
    answers = [port.ask("/login", method="POST", body=b"token=x").status for _ in range(12)]
    assert answers == [401] * 10 + [429] * 2
    assert port.ask("/login", method="POST", body=b"token=" + TOKEN).status == 303, "the right one is let in"
    port.clock.advance(1)
    assert port.ask("/login", method="POST", body=b"token=x").status == 401


def test_no_more_is_kept_of_a_request_than_a_token_needs() -> None:
    port = Port(peer=ELSEWHERE, token=TOKEN)
    assert port.ask("/login", method="POST", body=b"x=" + b"y" * 2000 + b"&token=" + TOKEN).status == 401


# Connections.


def test_several_requests_on_one_connection() -> None:
    connected = Port().connect()
    assert connected is not None
    protocol, transport = connected
    for _ in range(2):
        protocol.dataReceived(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert transport.value().count(b"HTTP/1.1 200 OK") == 2
    assert not transport.disconnecting


def test_connections_are_bounded() -> None:
    """One more is ended at once; when one has gone there is room again."""
    port = Port()
    all_there_may_be = [port.connect() for _ in range(50)]
    assert all(all_there_may_be)
    assert port.connect() is None
    first = all_there_may_be[0]
    assert first is not None
    first[0].connectionLost(None)
    assert port.connect() is not None


def test_who_says_nothing_is_ended() -> None:
    port = Port()
    connected = port.connect()
    assert connected is not None
    port.clock.advance(61)
    assert connected[1].disconnecting
    port.clock.advance(61)
    port.factory.doStop()


def test_no_timer_is_left() -> None:
    port = Port()
    port.factory.doStop()
    assert not port.clock.getDelayedCalls()
