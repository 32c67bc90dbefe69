"""The market page of a demo: who gets it, who does not, and what it is made of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketfeed.api.market_page import market_files, market_page
from marketfeed.http.head import Head, parse_head
from marketfeed.http.response import Response
from marketfeed.http.router import LateResponse, Router, Upgrade
from marketfeed.model.streams import StreamKinds
from marketfeed.web.files import MARKET, read
from tests.docs_runner import ROOT
from tests.strategies import property_test

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
FILES = market_files()
WITH = Router(StreamKinds(), FILES, market_page)
WITHOUT = Router(StreamKinds(), {})


def asked(router: Router, target: str = "/", method: str = "GET", **headers: str) -> Upgrade | Response | LateResponse:
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return router.ask(parse_head("\r\n".join(lines).encode()), "192.0.2.7")


def page(**headers: str) -> Response:
    """The answer, which must be the page."""
    answer = asked(WITH, **headers)
    assert isinstance(answer, Response)
    assert answer.media == "text/html; charset=utf-8"
    return answer


@pytest.mark.parametrize("accept", [BROWSER, "text/html", "TEXT/HTML", "image/png, text/html;level=1;q=0.3"])
def test_who_takes_html_gets_the_page(accept: str) -> None:
    answer = page(accept=accept)
    assert (answer.status, answer.text + "\n") == (200, read("market/index.html").decode())


@pytest.mark.parametrize("target", ["/?affinity=x", "/#TATA_INR".partition("#")[0]])
def test_a_query_is_no_matter(target: str) -> None:
    answer = asked(WITH, target, accept=BROWSER)
    assert isinstance(answer, Response)
    assert answer.status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"accept": "*/*"},
        {"accept": "text/*"},
        {"accept": "application/json"},
        {"accept": "text/html;q=0"},
        {"accept": "text/html; Q=0.000"},
        {"accept": "text/htmlx"},
        {"accept": BROWSER, "upgrade": "websocket"},
        {"accept": BROWSER, "upgrade": "h2c, WebSocket"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_whoever_else_asks_is_answered_as_without_a_page(headers: dict[str, str], method: str) -> None:
    """A WebSocket above all."""
    assert asked(WITH, method=method, **headers) == asked(WITHOUT, method=method, **headers)


@pytest.mark.parametrize("method", ["OPTIONS", "POST", "PUT", "DELETE", "TRACE"])
def test_other_methods_are_answered_as_without_a_page(method: str) -> None:
    assert asked(WITH, method=method, accept=BROWSER) == asked(WITHOUT, method=method, accept=BROWSER)


@property_test
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="?#"), max_size=30))
def test_every_other_path_is_answered_as_without_a_page(path: str) -> None:
    """Whatever it looks like: nothing is looked up on a disk."""
    head = Head("GET", f"/{path}", "", {"accept": BROWSER})
    if head.path not in ("/", *FILES):
        assert WITH.ask(head, None) == WITHOUT.ask(head, None)


@pytest.mark.parametrize(
    "path",
    [
        "/index.html",
        "/market",
        "/market/",
        "/market/index.html",
        "/market/../files.py",
        "/market/%2e%2e/files.py",
        "/market/client/../../../files.py",
        "/market/client/../../files.py%00.js",
        "/market//app.js",
        "//market/app.js",
        "/market/client",
        "/market/APP.js",
    ],
)
def test_there_is_nothing_else(path: str) -> None:
    try:
        answer = asked(WITH, path, accept=BROWSER)
    except ValueError:  # it is no path at all
        return
    assert isinstance(answer, Response)
    assert answer.status == 404


def test_a_head_request_gets_all_but_the_page() -> None:
    answer = asked(WITH, method="HEAD", accept=BROWSER)
    assert isinstance(answer, Response)
    head, _, body = answer.encode(is_head=True).partition(b"\r\n\r\n")
    assert body == b""
    assert f"Content-Length: {len(read('market/index.html'))}".encode() in head


def test_nothing_comes_from_elsewhere_and_nobody_frames_it() -> None:
    """As the headers say, of the page and of its files."""
    answers = [page(accept=BROWSER), *(asked(WITH, path) for path in FILES)]
    for answer in answers:
        assert isinstance(answer, Response)
        headers = dict(answer.headers)
        policy = dict(part.strip().partition(" ")[::2] for part in headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["frame-ancestors"] == "'none'"
        assert {policy[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
    assert dict(answers[0].headers)["Vary"] == "Accept, Upgrade"  # type: ignore[union-attr]


def test_a_copy_that_is_good_is_not_sent_again() -> None:
    """It is asked for each time, by its tag."""
    answer = page(accept=BROWSER)
    tag = dict(answer.headers)["ETag"]
    assert answer.cache == "no-cache"
    for given_tags in (tag, f'"other", W/{tag}', "*"):
        again = asked(WITH, accept=BROWSER, if_none_match=given_tags)
        assert isinstance(again, Response)
        assert again.status == 304
        assert dict(again.headers)["ETag"] == tag
        assert again.encode().endswith(b"\r\n\r\n")
        assert b"Content-Length" not in again.encode()
    assert page(accept=BROWSER, if_none_match='"other"').status == 200


@pytest.mark.parametrize("path", sorted(MARKET))
def test_files_are_what_they_are_on_disk(path: str) -> None:
    """Byte by byte, with a type by which a browser takes them."""
    answer = asked(WITH, path)
    assert isinstance(answer, Response)
    assert answer.encode().partition(b"\r\n\r\n")[2] == (ROOT / "marketfeed" / "web" / path[1:]).read_bytes()
    kind = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}
    assert answer.media == kind[path.rpartition(".")[2]]


def test_the_client_is_the_one_that_is_published() -> None:
    """The same files, not a copy of them."""
    ours = {path.removeprefix("/market/client/") for path in MARKET if path.startswith("/market/client/")}
    assert ours == {path.name for path in (ROOT / "clients" / "js" / "src").iterdir()}
    link = ROOT / "marketfeed" / "web" / "market" / "client"
    assert link.resolve() == (ROOT / "clients" / "js" / "src").resolve()


def test_all_that_the_page_loads_is_there() -> None:
    """What the page names, and what each module imports."""
    named = set(re.findall(r'(?:src|href)="(/market/[^"]+)"', read("market/index.html").decode()))
    for path in MARKET:
        if path.endswith(".js"):
            here = Path(path).parent
            for imported in re.findall(r"^import .*'(\..+)';$", read(path[1:]).decode(), re.M):
                named.add((here / imported).as_posix())
    assert "/market/client/feed.js" in named
    assert named <= set(MARKET)


def test_no_markup_is_made_of_data() -> None:
    """No module of the page writes HTML, and nothing is evaluated."""
    for path in MARKET:
        if path.endswith(".js"):
            found = re.search(
                r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|new Function", read(path[1:]).decode()
            )
            assert found is None, path
