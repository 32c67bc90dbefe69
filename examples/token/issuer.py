"""A small issuer of tokens: whoever is logged in at the platform gets one for the market data, which is soon over.

    python issuer.py KEY [--seconds 90] [--port 8070]        KEY: the file that the daemon has as --auth-key

1. The secret signs here and verifies there, and is nowhere else. No client has it.
2. A token is short: who is not logged in any more has market data for no longer than its rest.
3. Which streams a user may have is decided here, and stands in the token.
"""

from __future__ import annotations

import argparse
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jwt

SESSIONS = {"a-session-of-alice": "alice"}
"""Who is logged in. Here stands what your platform knows of its users."""


class Issuer(BaseHTTPRequestHandler):
    """Answers POST /token with `Authorization: Bearer <session>`."""

    secret: bytes
    seconds: int

    def do_POST(self) -> None:
        session = self.headers.get("Authorization", "").removeprefix("Bearer ")
        user = SESSIONS.get(session)
        if self.path != "/token":
            self._answer(404, {"error": "expected /token"})
        elif user is None:
            self._answer(401, {"error": "log in first"})
        else:
            self._answer(200, {"token": self._token(user)})

    def _token(self, user: str) -> str:
        now = int(time.time())
        claims = {
            "sub": user,
            "streams": ["trade@*", "depth@*", "orders@${sub}"],
            "iat": now,
            "exp": now + self.seconds,
        }
        print(f"{user}: a token until {claims['exp']}", flush=True)
        return jwt.encode(claims, self.secret, algorithm="HS256")

    def _answer(self, status: int, body: dict[str, str]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: what it issues is said above."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Issue tokens to whoever is logged in.")
    parser.add_argument("key", type=Path, help="a secret of 32 bytes or more, as the daemon has it")
    parser.add_argument("--seconds", type=int, default=90, help="how long a token is good (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8070, help="of this machine alone (default: %(default)s)")
    arguments = parser.parse_args()
    Issuer.secret = arguments.key.read_bytes().removesuffix(b"\n")
    Issuer.seconds = arguments.seconds
    with ThreadingHTTPServer(("127.0.0.1", arguments.port), Issuer) as server:
        print(f"tokens are at http://localhost:{server.server_port}/token", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("stopped")
