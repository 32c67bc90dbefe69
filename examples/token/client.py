"""A client that shows who it is: it asks an issuer for a token before each attempt, and whenever one is nearly over.

    python client.py [ADDRESS] [ISSUER]        Ctrl-C ends it

1. The connection stays when a token is over: the next one has taken its place by then.
2. An issuer that is away for a while is asked again. One that refuses is not: somebody has to log in.
"""

from __future__ import annotations

import asyncio
import json
import sys
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from marketfeed_client import Client, Error, FeedError, Gap, Message, Recovered

SESSION = "a-session-of-alice"
UNAUTHORIZED = 401


def ask(issuer: str) -> str:
    """A token. Raises FeedError if there is no use in asking again, and OSError if there may be."""
    request = Request(issuer, method="POST", headers={"Authorization": f"Bearer {SESSION}"})
    try:
        with urlopen(request, timeout=5) as answer:
            token: str = json.load(answer)["token"]
            return token
    except HTTPError as error:
        if error.code == UNAUTHORIZED:
            raise FeedError("token", "the session is over: log in again", final=True) from error
        raise


async def main(address: str = "ws://localhost:8080", issuer: str = "http://localhost:8070/token") -> None:
    """Print trades until the program is stopped. Raises FeedError if trying again cannot help."""

    async def token() -> str:
        return await asyncio.to_thread(ask, issuer)

    async with Client(address, token=token) as feed:
        async for news in feed.messages("trade@TATA_INR"):
            match news:
                case Message(data=trade):
                    print("TATA_INR", trade["t"], trade["p"], flush=True)
                case Error(message=message):
                    print("error", message, flush=True)
                case Gap(reason=reason):
                    print("gap", reason, flush=True)
                case Recovered(recovered=True, count=count):
                    print("recovered", count, flush=True)


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        print("stopped")
