"""Strategies for what a hostile or a broken peer sends: requests, handshakes and frames, good ones and spoilt ones."""

from __future__ import annotations

import json
import zlib
from itertools import pairwise

from hypothesis import strategies as st

from tests.by_hand import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, deflated, frame, handshake, say
from tests.strategies import almost_names, json_texts, json_values, spellings
from tests.tokens import forged, segment, signed
from tests.websocket.server import NOW

__all__ = ["GOOD", "SECRETS", "SOON", "guards", "handshakes", "paths", "pieces", "requests", "spoilt"]
__all__ += ["streams_of_frames"]

Edit = tuple[str, int, bytes]

_edits = st.lists(
    st.tuples(
        st.sampled_from(("put", "over", "cut", "again")),
        st.integers(0, 2000),
        st.binary(min_size=1, max_size=4)
        | st.sampled_from((b"\r\n", b"\n", b"\0", b" ", b":", b"\xff", b"\x80", b"\\", b'"', b"{", b"]", b"\x88\x80")),
    ),
    max_size=3,
)


def _edited(data: bytes, edits: list[Edit]) -> bytes:
    """Each edit puts bytes in, puts them over others, leaves so many out, or repeats what stands before them."""
    for what, where, new in edits:
        at = where % (len(data) + 1)
        if what == "put":
            data = data[:at] + new + data[at:]
        elif what == "over":
            data = data[:at] + new + data[at + len(new) :]
        elif what == "cut":
            data = data[:at] + data[at + new[0] :]
        else:
            data = data[:at] + data[max(0, at - new[0]) :]
    return data


def spoilt(good: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """What `good` gives, with a few bytes changed; often none."""
    return st.builds(_edited, good, _edits)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """`data`, cut at any places; no piece is empty."""
    edges = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    return [data[start:stop] for start, stop in pairwise(edges)]


# Tokens, and what a server may ask of whom it lets in.

GOOD = signed(claims={"sub": "alice", "exp": NOW + 3600})
SOON = signed(claims={"sub": "alice", "exp": NOW + 8})
_OTHERS = (signed(claims={"sub": "bob", "exp": NOW + 3600}), signed(claims={"sub": "alice", "exp": NOW - 10}))
_NARROW = (
    signed(claims={"sub": "alice", "exp": NOW + 3600, "streams": ["ticker@*"]}),
    signed(claims={"sub": "alice", "exp": NOW + 3600, "streams": "nonsense"}),
)
_BAD = (
    signed(claims={"sub": "alice", "exp": NOW - 3600}),
    signed(claims={"sub": "alice"}),
    signed("ES256", claims={"sub": "alice", "exp": NOW + 3600}),
    forged({"alg": "none"}, {"sub": "alice", "exp": NOW + 3600}, None),
    forged(b"[" * 3000, b"]" * 3000, b"secret"),
    ".".join(segment(b"\xff" * 9) for _ in range(3)),
    "nonsense",
    "",
)
SECRETS = frozenset(
    part[:20] for token in (GOOD, SOON, *_OTHERS, *_NARROW, *_BAD) for part in token.split(".") if len(part) > 10
)
"""Parts of the tokens that are sent, none of which is ever to be seen again."""

tokens = st.sampled_from((GOOD, GOOD, SOON, *_OTHERS, *_NARROW, *_BAD))

guards = st.fixed_dictionaries(
    {
        "auth": st.sampled_from(("off", "optional", "required")),
        "origins": st.sampled_from(((), ("*",), ("https://*.example.com", "null"))),
        "proxies": st.sampled_from(((), ("192.0.2.0/24",))),
        "connect_rate": st.sampled_from((0, 1, 2)),
        "per_address": st.sampled_from((0, 1, 2)),
        "max_connections": st.sampled_from((1, 100)),
        "max_handshakes": st.sampled_from((1, 100)),
    }
)
"""What a server is told about who may connect: keywords of `Server`."""

# Requests.

names = spellings().map(lambda pair: pair[0]) | st.sampled_from(("trade@A", "a@depth@100ms", "ticker@A")) | almost_names
_methods = st.sampled_from(
    (
        *("SUBSCRIBE", "SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY", "PING"),
        *("HISTORY", "HISTORY", "subscribe"),
    )
)
_ids = st.integers() | st.text(max_size=40) | st.none() | json_values
_properties = st.sampled_from(("combined", "offsets", "snapshot"))
_offsets = st.sampled_from(("", "0-0", "1-2", "abcd.0-1", "9" * 30)) | st.text(max_size=30)
_since = st.dictionaries(names | st.text(max_size=20), _offsets | json_values, max_size=3) | json_values
_limits = st.sampled_from((0, 1, 1000, 1001, True, None, "1")) | st.integers() | json_values
_params = (
    st.lists(names, max_size=5)
    | st.tuples(_properties, st.booleans() | json_values).map(list)
    | st.tuples(_properties).map(list)
    | st.lists(json_values | names, max_size=3)
    | json_values
)
objects = st.fixed_dictionaries(
    {},
    optional={"method": _methods | json_values, "params": _params, "id": _ids, "x": json_values}
    | {"since": _since, "limit": _limits},
)
_resumes = st.builds(
    lambda streams, offsets, extra: {
        "method": "SUBSCRIBE",
        "params": streams,
        "since": dict(zip(streams, offsets, strict=False)),
        **extra,
    },
    st.lists(st.sampled_from(("trade@A", "a@trade", "a@depth@100ms", "ticker@A", "orders@alice")), max_size=3),
    st.lists(_offsets, max_size=3),
    st.sampled_from(({}, {"id": 1}, {"id": None})),
)
_histories = st.builds(
    lambda stream, limit, extra: {"method": "HISTORY", "params": [stream], "limit": limit, **extra},
    st.sampled_from(("trade@A", "a@trade", "depth@A", "orders@alice")),
    st.integers(1, 1000) | _limits,
    st.sampled_from(({}, {"id": 1}, {"id": "x"})),
)

_auths = st.builds(
    lambda method, params, more: {"method": method, "params": params, **more},
    st.sampled_from(("AUTH", "AUTH", "auth")),
    st.lists(st.sampled_from((GOOD, GOOD, SOON, *_OTHERS, *_BAD)), min_size=1, max_size=2),
    st.sampled_from(({}, {"id": 1}, {"id": "x"}, {"token": GOOD})),
)

requests: st.SearchStrategy[bytes] = (
    spoilt(_auths.map(lambda request: json.dumps(request).encode()))
    | (_resumes | _histories).map(lambda request: json.dumps(request).encode())
    | objects.map(lambda request: json.dumps(request).encode())
    | spoilt(objects.map(lambda request: json.dumps(request, ensure_ascii=False).encode("utf-8", "replace")))
    | json_texts.map(str.encode)
    | st.text(max_size=60).map(str.encode)
    | st.sampled_from(
        (
            b'{"method":"PING","id":"\\ud800"}',
            b'{"method":"SUBSCRIBE","params":["\\ud800@trade"],"id":1}',
            b'{"method":"SUBSCRIBE","params":["trade@A\\u0000\\n"]}',
            b'{"method":"PING","id":1e400}',
            b'{"method":"PING","id":-0}',
            b'{"method":"PING","id":18446744073709551616}',
            b'{"id":1,"id":2,"method":"PING"}',
            b'{"method":"PING","id":' + b"[" * 900,
            b'{"x":' * 150 + b"1" + b"}" * 150,
            b'{"method":"PING","params":' + b"[" * 9000 + b"]" * 9000 + b"}",
            b'{"method":"SUBSCRIBE","params":["trade@A","trade@A","a@trade"],"id":null}',
        )
    )
)
"""The payloads of text messages; most are at least nearly JSON, and some are no UTF-8."""

# Handshakes.

paths = st.sampled_from(("/", "/stream", "/ws", "/ws/trade@A", "/stream?streams=trade@A/a@depth"))
_odd_paths = paths | st.sampled_from(
    (
        *(
            "/healthz",
            "/readyz",
            "/nothing",
            "/ws/0",
            "/ws/trade@",
            "/stream?streams=%ff",
            "/ws/%00@trade",
            "*",
            "//",
            "",
        ),
        *(
            "http://localhost/ws",
            "/ws#x",
            "/%2e%2e/ws",
            "/stream?streams=" + "trade@A/" * 300,
            "/ws/" + "a@trade/" * 30,
        ),
    )
)
_latin = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=30)
_headers = st.dictionaries(
    st.sampled_from(
        (
            *(
                "Host",
                "Connection",
                "Upgrade",
                "Origin",
                "Sec_WebSocket_Key",
                "Sec_WebSocket_Version",
                "Transfer_Encoding",
            ),
            *("Sec_WebSocket_Protocol", "Sec_WebSocket_Extensions", "Content_Length", "X_Forwarded_For", "Cookie"),
        )
    ),
    st.none()
    | _latin
    | st.sampled_from(
        (
            *(
                "",
                "8",
                "13",
                "null",
                "http://[",
                "http://x",
                "close",
                "keep-alive, Upgrade",
                "websocket, h2c",
                "chunked",
            ),
            *("permessage-deflate", "permessage-deflate; server_max_window_bits=10", "permessage-deflate;;=", "a, a"),
        )
    ),
    max_size=3,
)
_good_handshakes = st.builds(lambda path, headers: handshake(path, **headers), _odd_paths, _headers) | paths.map(
    handshake
)


def _asking(path: str, token: str | None, headers: dict[str, str]) -> bytes:
    query = "" if token is None else f"{'&' if '?' in path else '?'}token={token}"
    return handshake(path + query, **headers)


_hops = st.sampled_from(
    ("192.0.2.7", "192.0.2.9", "198.51.100.1", "198.51.100.1:80", "[2001:db8::1]:443", "2001:db8::1", "", "unknown")
) | st.text("0123456789abcdef:.[]%, ", max_size=20)
_access = st.fixed_dictionaries(
    {},
    optional={
        "Origin": st.sampled_from(
            (
                "https://localhost",
                "http://127.0.0.1:80",
                "https://a.example.com",
                "https://evil.example",
                "null",
                "",
                "x",
            )
        )
        | _latin,
        "Authorization": tokens.map("Bearer {}".format)
        | st.lists(tokens, max_size=3).map(lambda some: ", ".join(f"bearer {each}" for each in some))
        | st.sampled_from(("Basic eDp5", "Bearer", "Bearer  x  y", ","))
        | _latin,
        "X_Forwarded_For": st.lists(_hops, max_size=4).map(", ".join) | _latin,
        "Sec_WebSocket_Protocol": st.lists(
            tokens.map("bearer.{}".format) | st.sampled_from(("marketfeed", "other", "bearer.", "")), max_size=3
        ).map(", ".join),
        "Host": st.sampled_from(("localhost", "feed.example.com:8080", "[::1]")),
        "Sec_WebSocket_Key": st.just("short"),
    },
)
_askings = st.builds(_asking, paths, st.none() | st.none() | tokens, _access)

_methods_of_http = st.sampled_from((b"HEAD", b"OPTIONS", b"POST", b"get", b"GET", b"PRI", b"\x16\x03\x01", b""))

handshakes: st.SearchStrategy[bytes] = (
    spoilt(_good_handshakes)
    | _askings
    | spoilt(_askings)
    | st.builds(lambda method, request: method + request[3:], _methods_of_http, _good_handshakes)
    | st.builds(lambda line: line.encode("latin-1") + b"\r\n\r\n", _latin)
    | st.builds(lambda count: b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * count + b"\r\n", st.integers(95, 4000))
    | st.binary(max_size=200)
)
"""What may come first on a connection."""

# Frames.


_payloads = (
    requests
    | st.binary(max_size=20)
    | st.sampled_from((b"x" * 125, b"x" * 126, b"x" * 999, b"x" * 1001))
    | st.builds(
        deflated,
        requests | st.sampled_from((b"x" * 1000, b"x" * 1001, b"x" * 100_000)),
        mode=st.sampled_from((zlib.Z_SYNC_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FINISH)),
    )
)
_closes = st.builds(
    lambda code, reason: frame(code.to_bytes(2, "big") + reason, CLOSE),
    st.sampled_from((1000, 1001, 999, 1005, 1012, 3000, 4999, 5000, 65535)),
    st.sampled_from((b"", b"bye", b"\xff", b"x" * 123, b"x" * 124)),
)
_frames = (
    st.builds(
        frame,
        _payloads,
        st.sampled_from((TEXT, TEXT, TEXT, CONTINUATION, BINARY, PING, PONG, CLOSE, 3, 11)),
        fin=st.sampled_from((True, True, False)),
        rsv=st.sampled_from((0, 0, 0, 4, 4, 1)),
        mask=st.sampled_from((b"mask", b"\0\0\0\0", None)),
        announced=st.sampled_from((None, None, None, 5, 200, 2**40)),
        length_bytes=st.sampled_from((None, None, 8)),
    )
    | _closes
)
_good_frames = st.builds(frame, requests) | st.builds(frame, requests, rsv=st.just(0), fin=st.booleans())
_talk = st.sampled_from(
    (
        say({"method": "SUBSCRIBE", "params": ["trade@A", "a@depth"], "id": 1}),
        say({"method": "UNSUBSCRIBE", "params": ["trade@A"], "id": 2}),
        say({"method": "SET_PROPERTY", "params": ["snapshot", True], "id": 2}),
        say({"method": "SUBSCRIBE", "params": ["trade@A", "a@trade"], "since": {"trade@A": "0-0"}, "id": 3}),
        say({"method": "HISTORY", "params": ["trade@A"], "limit": 1000, "id": 4}),
        30 * say({"method": "HISTORY", "params": ["trade@A"]}),
        frame(deflated(b'{"method":"PING","id":3}'), rsv=4),
        frame(b"", CONTINUATION, fin=False),
        frame(b"p", PING),
        30 * frame(b'{"method":"PING"}'),
    )
)

streams_of_frames: st.SearchStrategy[bytes] = spoilt(
    st.lists(_talk | _good_frames | _frames, max_size=6).map(b"".join)
) | st.binary(max_size=100)
"""What may come once a connection is open."""
