"""Asks a daemon's admin port for /status.json (docs/operations/status.md#the-status-as-json), in plain blocking calls.

1. However slowly a server answers, or its name is resolved, it has `SECONDS` for all of it, and so many bytes.
2. What goes wrong is one line, which says what to do.
3. Redirects are not followed, and no proxy of the environment is asked: the token is for the daemon.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import closing
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from threading import Thread

from marketfeed.commands.address import ServerAddress, parse_url
from marketfeed.commands.arguments import cannot_be_used
from marketfeed.config.settings import BadSetting
from marketfeed.model.kinds.columns import clean

__all__ = ["DEFAULT_URL", "ELSEWHERE", "NoAnswer", "Place", "ask", "parse_place", "read_token", "shown"]

DEFAULT_URL = "http://127.0.0.1:8081"
SECONDS = 5.0

_FORMS = "http://host:port, https://host:port or unix:/path, as in http://127.0.0.1:8081"
_PORTS = {"http": 80, "https": 443}
_MOST = 1 << 24
"""Bytes of an answer."""
_TOKEN_FILE = "--token-file, or the variable MARKETFEED_ADMIN_TOKEN_FILE"
_TOKEN = "a file with the token of the daemon's --admin-token-file"
_MOST_TOKEN = 8192
ELSEWHERE = "expected the address of a daemon's --admin"

Place = ServerAddress | str
"""Where the port is; a path, if it is a Unix socket."""


class NoAnswer(Exception):
    """Why there is none; the message is one line."""


def parse_place(url: str) -> Place:
    """Read where the admin port is. Raises `BadSetting`."""
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        if not path.startswith("/") or not path.isprintable():
            raise cannot_be_used("URL", url, _FORMS)
        return path
    address = parse_url(url, _FORMS, _PORTS)
    if address.resource != "/":
        raise cannot_be_used("URL", url, f"no path behind the port: {_FORMS}")
    return address


def shown(place: Place) -> str:
    """As it is written in a command line."""
    return f"unix:{place}" if isinstance(place, str) else place.shown.removesuffix("/")


def read_token(path: str | None) -> str | None:
    """The token that is in a file. Raises `BadSetting`, whose message does not hold it."""
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            token = file.read(_MOST_TOKEN).decode("ascii").strip()
    except OSError as error:
        raise BadSetting(f"{_TOKEN_FILE}: {clean(path)}: {error.strerror}; expected {_TOKEN}") from None
    except ValueError:
        token = ""
    if not token or not token.isprintable():
        raise BadSetting(f"{_TOKEN_FILE}: {clean(path)}: expected {_TOKEN}")
    return token


def ask(place: Place, token: str | None, since: int) -> bytes:
    """The body of the answer, with the samples behind the one of the number `since`. Raises `NoAnswer`."""
    answers: list[bytes | NoAnswer] = []

    def run() -> None:
        try:
            answers.append(_ask(place, token, since))
        except NoAnswer as fault:
            answers.append(fault)
        except ssl.SSLCertVerificationError as error:
            answers.append(NoAnswer(f"its certificate is not trusted: {error.verify_message}"))
        except (OSError, UnicodeError) as error:
            answers.append(NoAnswer(f"{getattr(error, 'strerror', None) or error}; {ELSEWHERE}"))
        except HTTPException:
            answers.append(NoAnswer(f"what is there does not speak HTTP; {ELSEWHERE}"))

    thread = Thread(target=run, daemon=True)  # which ends with the process, whatever it waits for
    thread.start()
    thread.join(SECONDS)
    answer = answers[0] if answers else NoAnswer(f"it does not answer within {SECONDS:g} s")
    if isinstance(answer, NoAnswer):
        raise answer
    return answer


def _ask(place: Place, token: str | None, since: int) -> bytes:
    headers = {"Connection": "close"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    with closing(_connection(place)) as connection:
        connection.request("GET", f"/status.json?since={since}", headers=headers)
        with connection.getresponse() as response:
            if response.status != 200:
                raise NoAnswer(_refusal(response.status, token is not None))
            body = response.read(_MOST + 1)
    if len(body) > _MOST:
        raise NoAnswer(f"the answer is longer than {_MOST} bytes; {ELSEWHERE}")
    return body


def _connection(place: Place) -> HTTPConnection:
    if isinstance(place, str):
        return _UnixConnection(place)
    if place.is_secure:
        return HTTPSConnection(place.host, place.port, timeout=SECONDS, context=ssl.create_default_context())
    return HTTPConnection(place.host, place.port, timeout=SECONDS)


class _UnixConnection(HTTPConnection):
    """HTTP on a Unix socket, where the daemon is asked as localhost."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SECONDS)
        self.sock.connect(self._path)


def _refusal(status: int, has_token: bool) -> str:
    """What to do when the daemon answers so."""
    if status == 401 and has_token:
        return f"it has another token than the one of {_TOKEN_FILE}"
    if status == 401:
        return f"it asks for a token: give {_TOKEN_FILE}, {_TOKEN}"
    if status == 403:
        return (
            "only who is on its own host may look there: start the daemon with --admin-token-file, and give the same "
            f"token here with {_TOKEN_FILE}"
        )
    if status == 421:
        return "the daemon does not go by this name: start it with --admin-host and the name, or use its address"
    return f"it answers with the status {status}; {ELSEWHERE}"
