"""Plain answers: the bytes that are sent."""

from __future__ import annotations

from marketfeed.http.response import Response


def test_an_answer_has_a_length_and_ends_the_connection() -> None:
    """With its own headers."""
    assert Response(503, "é", (("Retry-After", "5"),)).encode() == (
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 3\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n\xc3\xa9\n"
    )


def test_an_answer_may_be_json() -> None:
    """As it is, without the text."""
    assert Response(200, "a book", json=b'{"a":1}').encode() == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n"
        b'Cache-Control: no-store\r\nConnection: close\r\n\r\n{"a":1}'
    )


def test_the_answer_to_head_has_the_length_and_no_body() -> None:
    """The headers are those of a GET."""
    answer = Response(404, "nothing")
    assert answer.encode(is_head=True) + b"nothing\n" == answer.encode()


def test_no_content_has_no_length() -> None:
    """RFC 9110, section 8.6, forbids one with 204."""
    assert Response(204, "").encode() == (
        b"HTTP/1.1 204 No Content\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
