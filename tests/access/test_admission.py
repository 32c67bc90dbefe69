"""Who may connect: each refusal, the order in which they come, and that what was counted is given back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from marketfeed.access.addresses import AddressRate
from marketfeed.access.admission import Admitted
from marketfeed.access.keys import KeySet, VerifyKey
from marketfeed.access.tokens import BadToken, TokenVerifier
from marketfeed.http.head import parse_head
from marketfeed.http.response import Response
from marketfeed.model.identity import ANONYMOUS
from marketfeed.websocket.connections import UserManager
from tests.by_hand import handshake
from tests.conftest import LogCapture
from tests.fakes import FakeMemory, make_admission
from tests.strategies import property_test
from tests.tokens import HOUR, NOW, SECRET, signed

PEER = "192.0.2.7"
PROXY = "10.0.0.1"
OWN, OTHER = "https://localhost", "https://evil.example"
GOOD = signed()
BAD = GOOD[:-8] + "x" * 8
TWO = f"Bearer {GOOD}, Bearer {BAD}"


class Door:
    """An admission, and all that it looks at. `auth`: as the option; other keywords are those of `make_admission`."""

    def __init__(self, *, auth: str = "off", max_connections: int = 100, **admission: Any) -> None:
        self.clock = Clock()
        self.users = UserManager(self.clock, max_connections, 0.0, lambda: NOW)
        self.memory = FakeMemory()
        if auth != "off":
            keys = KeySet({}, VerifyKey("HS256", SECRET))
            admission["verifier"] = TokenVerifier(lambda: keys, lambda: NOW)
            admission["needs_token"] = auth == "required"
        self.admission = make_admission(self.clock, self.users, memory=self.memory, **{"origins": (), **admission})

    def knock(self, address: str | None = PEER, path: str = "/", **headers: str | None) -> Admitted | Response:
        """Somebody asks to come in."""
        return self.admission.admit(address, parse_head(handshake(path, **headers)[:-4]))

    def status(self, address: str | None = PEER, path: str = "/", **headers: str | None) -> int:
        """101, or with what somebody is refused."""
        answer = self.knock(address, path, **headers)
        return answer.status if isinstance(answer, Response) else 101

    def come_in(self, address: str | None = PEER, path: str = "/", **headers: str | None) -> Admitted:
        """Somebody comes in."""
        answer = self.knock(address, path, **headers)
        assert isinstance(answer, Admitted), answer
        return answer

    @property
    def counted(self) -> int:
        """How many addresses have connections."""
        return len(self.admission.counts)


class TestOrigin:
    def test_a_program_has_none(self) -> None:
        """It comes in, from anywhere."""
        assert Door().come_in() == Admitted(PEER, PEER, ANONYMOUS)

    def test_a_page_of_this_host_comes_in(self) -> None:
        """As the Host header names it, whatever the port."""
        assert Door().status(Origin="http://localhost:3000") == 101

    @pytest.mark.parametrize("origin", [OTHER, "null", "", "nonsense", f"{OWN}, {OWN}"])
    def test_other_pages_are_refused(self, origin: str) -> None:
        """With 403, and nothing of what they sent."""
        answer = Door().knock(Origin=origin)
        assert answer == Response(403, "pages of this origin may not connect", reason="origin")

    def test_an_operator_may_let_them_in(self) -> None:
        """The option is instead of the rule, not beside it."""
        door = Door(origins=["https://*.example"])
        assert [door.status(Origin=origin) for origin in (OTHER, OWN)] == [101, 403]

    def test_a_page_of_this_machine(self) -> None:
        """Comes in from this machine under any of its names, but not when the client is elsewhere."""
        headers = {"Host": "feed.example.com", "Origin": "http://127.0.0.1:3000"}
        assert [Door().status(peer, **headers) for peer in ("::1", "127.0.0.5", PEER, None)] == [101, 101, 403, 403]

    def test_each_origin_is_logged_once(self, logged: LogCapture) -> None:
        """As a warning with the flag that would admit it, fit to be copied; what cannot be read is not shown."""
        door = Door()
        for origin in (OTHER, OTHER, "https://Evil.EXAMPLE:443", "https://b.example:8443", "secret", "other secret"):
            assert door.status(Origin=origin) == 403
        assert [event.get("flag") for event in logged.events] == [
            "--allowed-origin https://evil.example",
            "--allowed-origin https://b.example:8443",
            None,
        ]
        assert {event["log_level"].name for event in logged.events} == {"warn"}
        assert "secret" not in repr(logged.events)


def in_authorization(token: str) -> tuple[str, dict[str, str]]:
    return "/", {"Authorization": f"Bearer {token}"}


def in_query(token: str) -> tuple[str, dict[str, str]]:
    return f"/?token={token}", {}


def in_subprotocol(token: str) -> tuple[str, dict[str, str]]:
    return "/", {"Sec_WebSocket_Protocol": f"marketfeed, bearer.{token}"}


PLACES = pytest.mark.parametrize("place", [in_authorization, in_query, in_subprotocol])


class TestToken:
    @PLACES
    @pytest.mark.parametrize("auth", ["optional", "required"])
    def test_a_good_one_says_who_comes(self, place: Any, auth: str) -> None:
        """In any of its places, with and without an Origin."""
        path, headers = place(GOOD)
        door = Door(auth=auth)
        for origin in (None, OWN):
            identity = door.come_in(path=path, Origin=origin, **headers).identity
            assert identity is not None
            assert (identity.user, identity.expires_at) == ("alice", NOW + HOUR)

    @PLACES
    @pytest.mark.parametrize("auth", ["optional", "required"])
    def test_a_bad_one_is_refused(self, place: Any, auth: str) -> None:
        """Also where none is needed: who sends one wants to be somebody. With the scheme that is spoken."""
        path, headers = place(BAD)
        answer = Door(auth=auth).knock(path=path, **headers)
        assert answer == Response(
            401, "the token's signature is not valid", (("WWW-Authenticate", "Bearer"),), reason="bad-token"
        )

    @PLACES
    @pytest.mark.parametrize("auth", ["optional", "required"])
    def test_a_page_with_a_bad_one_comes_in_to_be_told(self, place: Any, auth: str) -> None:
        """It is nobody then: a browser shows no page the status of a refusal."""
        path, headers = place(BAD)
        assert Door(auth=auth).come_in(path=path, Origin=OWN, **headers).identity is None

    def test_a_page_of_another_origin_is_not_told(self) -> None:
        """Its token is not even looked at."""
        assert Door(auth="required").status(Origin=OTHER, **in_authorization(BAD)[1]) == 403

    def test_a_missing_one(self) -> None:
        """Is refused where one is needed, and a page is told; an empty one is missing."""
        door = Door(auth="required")
        assert door.knock() == Response(401, "a token is needed", (("WWW-Authenticate", "Bearer"),), reason="no-token")
        assert door.status(path="/?token=") == 401
        assert door.come_in(Origin=OWN).identity is None

    def test_where_it_is_optional(self) -> None:
        """Who has none is nobody in particular."""
        door = Door(auth="optional")
        assert door.come_in().identity is ANONYMOUS
        assert door.come_in(Origin=OWN).identity is ANONYMOUS

    def test_without_keys_tokens_mean_nothing(self) -> None:
        """A bad one is no reason to be refused then."""
        for place in (in_authorization, in_query, in_subprotocol):
            path, headers = place(BAD)
            assert Door().come_in(path=path, **headers).identity is ANONYMOUS

    @pytest.mark.parametrize("origin", [None, OWN])
    def test_two_different_ones(self, origin: str | None) -> None:
        """400, for nobody knows which of them counts."""
        answer = Door(auth="optional").knock(Origin=origin, Authorization=TWO)
        assert answer == Response(400, "there are two different tokens in the request")

    def test_a_client_may_bring_another_later(self) -> None:
        """What AUTH asks for."""
        admission = Door(auth="optional").admission
        assert admission.verify(GOOD).user == "alice"
        with pytest.raises(BadToken, match="signature"):
            admission.verify(BAD)

    def test_without_keys_none_is_taken_later(self) -> None:
        """Which the client is told."""
        with pytest.raises(BadToken, match="takes no tokens"):
            Door().admission.verify(GOOD)

    @pytest.mark.parametrize("origin", [None, OWN, OTHER])
    @PLACES
    def test_none_is_in_an_answer_or_the_log(self, place: Any, origin: str | None, logged: LogCapture) -> None:
        """Nor any part of it, whatever is wrong with it."""
        door = Door(auth="required", per_address=1)
        for token in (GOOD, GOOD, BAD, signed(exp=1), signed("ES256"), f"{GOOD}.x", "nonsense-nonsense"):
            path, headers = place(token)
            shown = repr(door.knock(path=path, Origin=origin, **headers)) + repr(logged.events)
            assert not [part for part in token.split(".") if len(part) > 8 and part in shown]


class TestLimits:
    def test_attempts(self) -> None:
        """429 with the time to the next one; another address is another matter."""
        door = Door(connect_rate=3)
        assert [door.status() for _ in range(4)] == [101, 101, 101, 429]
        text = "too many connections from this address"
        assert door.knock() == Response(429, text, (("Retry-After", "100"),), reason="rate")
        assert door.status("192.0.2.8") == 101
        door.clock.advance(40)
        assert door.knock() == Response(429, text, (("Retry-After", "60"),), reason="rate")
        door.clock.advance(60)
        assert door.status() == 101

    def test_attempts_that_are_refused_count_too(self) -> None:
        """Or guessing tokens would cost nothing."""
        door = Door(auth="required", connect_rate=2)
        assert [door.status() for _ in range(3)] == [401, 401, 429]

    def test_a_good_token_counts_for_its_user(self) -> None:
        """Wherever the user comes from, and however many others come from there: a carrier has thousands behind one."""
        door = Door(auth="optional", connect_rate=2)
        bearer = {name: f"Bearer {signed(sub=name)}" for name in ("alice", "bob", "carol")}
        assert [door.status() for _ in range(3)] == [101, 101, 429]
        assert [door.status(Authorization=each) for each in bearer.values()] == [101, 101, 101]
        assert door.status("192.0.2.8", Authorization=bearer["alice"]) == 101
        text = "too many connections of this user"
        for address in (PEER, "192.0.2.9"):
            answer = door.knock(address, Authorization=bearer["alice"])
            assert answer == Response(429, text, (("Retry-After", "150"),), reason="rate")
        assert door.status("192.0.2.8") == 101
        door.clock.advance(150)
        assert [door.status(Authorization=bearer["alice"]) for _ in range(2)] == [101, 429]

    def test_bad_tokens_are_not_verified_without_end(self) -> None:
        """After as many as attempts are permitted, those of an address that are known to be good are the only ones."""
        door = Door(auth="optional", connect_rate=2)
        known, new = f"Bearer {signed(sub='alice')}", f"Bearer {signed(sub='bob')}"
        assert door.status("192.0.2.8", Authorization=known) == 101
        assert [door.status(Authorization=f"Bearer {BAD}") for _ in range(3)] == [401, 401, 429]
        assert [door.status(Authorization=each) for each in (known, new)] == [101, 429]
        assert [door.status(), door.status("192.0.2.8", Authorization=new)] == [429, 101]
        door.clock.advance(150)
        assert door.status(Authorization=new) == 101

    def test_connections_of_an_address(self) -> None:
        """429 with when to try again, until one of them is gone."""
        door = Door(per_address=2)
        first = door.come_in()
        door.come_in()
        assert door.knock() == Response(
            429, "too many connections from this address", (("Retry-After", "30"),), reason="address-full"
        )
        assert door.status("192.0.2.8") == 101
        door.admission.leave(first)
        assert [door.status(), door.status()] == [101, 429]

    def test_a_household_has_a_network(self) -> None:
        """IPv6 counts per /64, for who has one address there has them all."""
        door = Door(per_address=1)
        addresses = ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1")
        assert [door.status(address) for address in addresses] == [101, 429, 101]

    def test_a_unix_socket_has_no_address(self) -> None:
        """Whoever is behind it is not counted."""
        door = Door(connect_rate=1, per_address=1)
        assert [door.status(None) for _ in range(3)] == [101, 101, 101]
        assert door.come_in(None).key is None
        door.admission.leave(door.come_in(None))

    @pytest.mark.parametrize("per_address", [0, 1])
    def test_what_leaving_is_worth(self, per_address: int) -> None:
        """Nothing, where nothing is counted."""
        door = Door(per_address=per_address)
        assert door.admission.counts.is_limited == bool(per_address)
        admitted = door.come_in()
        assert door.counted == per_address
        door.admission.leave(admitted)
        assert door.counted == 0

    @pytest.mark.parametrize("headers", [{"Authorization": TWO}, {"Authorization": f"Bearer {BAD}"}, {}])
    def test_who_is_refused_is_not_counted(self, headers: dict[str, str]) -> None:
        """Whatever is the matter with the token."""
        door = Door(auth="required", per_address=1)
        assert door.status(**headers) in (400, 401)
        assert door.counted == 0
        assert door.status(**in_authorization(GOOD)[1]) == 101

    def test_a_full_house(self) -> None:
        """503 with when to try again."""
        door = Door(max_connections=0)
        answer = door.knock()
        assert isinstance(answer, Response)
        assert (answer.status, answer.headers) == (503, (("Retry-After", "30"),))

    def test_a_house_that_closes(self) -> None:
        """503."""
        door = Door()
        door.users.draining = True
        assert door.status() == 503

    def test_memory(self) -> None:
        """503 while it is short, and as before when it is not."""
        door = Door()
        for is_full in (True, False):
            door.memory.is_full = is_full
            assert door.status() == (503 if is_full else 101)
        door.memory.is_full = True
        assert door.knock() == Response(
            503, "this server is short of memory", (("Retry-After", "30"),), reason="memory"
        )


class TestAddress:
    @pytest.mark.parametrize(
        ("peer", "forwarded", "address"),
        [
            (PEER, None, PEER),
            (PEER, "198.51.100.9", PEER),
            (PROXY, None, PROXY),
            (PROXY, "198.51.100.9", "198.51.100.9"),
            (PROXY, "203.0.113.1, 198.51.100.9", "198.51.100.9"),
            (PROXY, "198.51.100.9, 10.0.0.2", "198.51.100.9"),
            (PROXY, "nonsense", PROXY),
            (None, "198.51.100.9", "198.51.100.9"),
            (None, None, None),
        ],
    )
    def test_only_a_trusted_proxy_is_believed(self, peer: str | None, forwarded: str | None, address: str) -> None:
        """About who is behind it."""
        admission = Door(proxies=["10.0.0.0/8", "unix"]).admission
        head = parse_head(handshake(X_Forwarded_For=forwarded)[:-4])
        assert admission.address(peer, head) == address


class Trial:
    """What is drawn for one attempt: a name for each thing that may be the matter."""

    def __init__(self, auth: str, **matters: Any) -> None:
        self.auth = auth
        self.has_attempts: bool = matters["has_attempts"]
        self.has_tokens: bool = matters["has_tokens"]
        self.user_has_attempts: bool = matters["user_has_attempts"]
        self.state: str = matters["state"]
        self.origin: str | None = matters["origin"]
        self.has_place: bool = matters["has_place"]
        self.token: str = matters["token"]

    @property
    def expected(self) -> int:
        """docs/protocol.md#refusals-and-closes, in the order of what it costs to find out."""
        checks = (
            (429, self.is_late),
            (503, self.state != "open"),
            (403, self.origin == OTHER),
            (429, not self.has_place),
            (400, self.auth != "off" and self.token == "two"),
            (429, self.verifies("bad") and not self.has_attempts),
            (429, self.verifies("good") and not self.user_has_attempts),
            (401, self.origin is None and self.verifies("bad")),
            (401, self.origin is None and self.auth == "required" and self.token == "none"),
        )
        return next((status for status, holds in checks if holds), 101)

    def verifies(self, token: str) -> bool:
        """Whether the client has such a token, and it is looked at."""
        return self.auth != "off" and self.token == token

    @property
    def is_late(self) -> bool:
        """Too many attempts were made, as can be said at once."""
        if self.verifies("bad"):
            return not self.has_tokens
        return not (self.has_attempts or self.verifies("good")) or (self.verifies("good") and not self.has_tokens)

    def spend(self, door: Door, rate: AddressRate) -> None:
        """Let others make the attempts that are made already, of two that are permitted."""
        for _ in range(1 if self.has_attempts else 2):
            rate.attempt(PEER, 0.0)
        for _ in range(1 if self.has_tokens else 2):
            door.admission.rate._bad_tokens.take(PEER, 0.0)
        for _ in range(1 if self.user_has_attempts else 2):
            rate.attempt_of("alice", "192.0.2.99", 0.0)

    @property
    def user(self) -> str | None:
        """Who comes in; None: a page that is to be told that its token is missing or bad."""
        if self.auth == "off":
            return ""
        of_none = None if self.auth == "required" else ""
        return {"good": "alice", "bad": None, "none": of_none}[self.token]


trials = st.builds(
    Trial,
    st.sampled_from(("off", "optional", "required")),
    has_attempts=st.sampled_from((True, True, False)),
    has_tokens=st.sampled_from((True, True, False)),
    user_has_attempts=st.sampled_from((True, True, False)),
    state=st.sampled_from(("open", "open", "open", "full", "draining", "no memory")),
    origin=st.sampled_from((None, None, OWN, OTHER)),
    has_place=st.sampled_from((True, True, False)),
    token=st.sampled_from(("none", "good", "bad", "two")),
)
AUTHORIZATIONS = {"none": None, "good": f"Bearer {GOOD}", "bad": f"Bearer {BAD}", "two": TWO}


@property_test
@given(trials)
def test_the_first_thing_that_is_the_matter_decides(trial: Trial) -> None:
    """By the order of what it costs to find out, and nobody is counted who does not come in."""
    door = Door(auth=trial.auth, connect_rate=2, per_address=1, max_connections=0 if trial.state == "full" else 9)
    counts = door.admission.counts
    trial.spend(door, door.admission.rate)
    if not trial.has_place:
        counts.enter(PEER)
    door.users.draining = trial.state == "draining"
    door.memory.is_full = trial.state == "no memory"
    answer = door.knock(Origin=trial.origin, Authorization=AUTHORIZATIONS[trial.token])
    assert (answer.status if isinstance(answer, Response) else 101) == trial.expected
    if isinstance(answer, Admitted):
        user = None if answer.identity is None else answer.identity.user
        assert user == trial.user
        assert door.counted == 1
        door.admission.leave(answer)
    assert door.counted == (not trial.has_place)


@property_test
@given(trials)
def test_one_plain_answer_passes_the_same_doors(trial: Trial) -> None:
    """But it takes nobody's place, and a page learns as well as a program that its token is missing or bad."""
    most = 0 if trial.state == "full" else 9
    door = Door(auth=trial.auth, connect_rate=2, rest_rate=2, per_address=1, max_connections=most)
    trial.spend(door, door.admission.rest)
    door.users.draining = trial.state == "draining"
    door.memory.is_full = trial.state == "no memory"
    head = parse_head(handshake(Origin=trial.origin, Authorization=AUTHORIZATIONS[trial.token])[:-4])
    answer = door.admission.identify(PEER, head)
    checks = (
        (429, trial.is_late),
        (503, trial.state in ("draining", "no memory")),
        (403, trial.origin == OTHER),
        (400, trial.auth != "off" and trial.token == "two"),
        (429, trial.verifies("bad") and not trial.has_attempts),
        (429, trial.verifies("good") and not trial.user_has_attempts),
        (401, trial.verifies("bad")),
        (401, trial.auth == "required" and trial.token == "none"),
    )
    expected = next((status for status, holds in checks if holds), 200)
    assert (answer.status if isinstance(answer, Response) else 200) == expected
    if not isinstance(answer, Response):
        assert answer.user == ("alice" if trial.auth != "off" and trial.token == "good" else "")
    assert door.admission.permits_origin(PEER, head) == (trial.origin != OTHER)
    assert door.counted == 0


def ask(door: Door, address: str | None = PEER, **headers: str) -> int:
    """Somebody asks for an answer in plain HTTP; 200, or with what it is refused."""
    answer = door.admission.identify(address, parse_head(handshake(**headers)[:-4]))
    return answer.status if isinstance(answer, Response) else 200


def test_plain_answers_have_a_rate_of_their_own() -> None:
    """By address, or by the user of a good token wherever it is; who has used it up may connect, and the other way."""
    door = Door(auth="optional", connect_rate=1, rest_rate=2)
    assert [ask(door) for _ in range(3)] == [200, 200, 429]
    assert [door.status(), door.status()] == [101, 429]
    good = {"Authorization": f"Bearer {GOOD}"}
    assert [ask(door, address, **good) for address in (PEER, "192.0.2.8", "192.0.2.9")] == [200, 200, 429]
    assert [ask(door, None) for _ in range(3)] == [200, 200, 200]
    door.clock.advance(30)
    assert [ask(door), ask(door)] == [200, 429]


def test_a_bad_token_in_a_plain_request_counts_for_its_address_too() -> None:
    """As a request, and among the bad ones of that address, of which no more are verified: not as a connection."""
    door = Door(auth="optional", connect_rate=2, rest_rate=3)
    bad = {"Authorization": f"Bearer {BAD}"}
    assert [ask(door, **bad) for _ in range(3)] == [401, 401, 429]
    assert [ask(door), ask(door)] == [200, 429]
    assert [door.status() for _ in range(3)] == [101, 101, 429]


@property_test
@given(st.lists(st.tuples(st.sampled_from((PEER, "192.0.2.8", "2001:db8::1", "2001:db8::2", None)), st.booleans())))
def test_whoever_comes_and_goes_is_counted_once(script: list[tuple[str | None, bool]]) -> None:
    """Beside a list of who is here: at most two of an address, and none when all have left."""
    door = Door(per_address=2)
    here: list[Admitted] = []
    for address, comes in script:
        if comes:
            answer = door.knock(address)
            of_address = [each for each in here if each.key is not None and each.address in same(address)]
            assert isinstance(answer, Response) == (len(of_address) == 2)
            if isinstance(answer, Admitted):
                here.append(answer)
        elif here:
            door.admission.leave(here.pop())
        assert door.counted == len({each.key for each in here} - {None})
    for each in here:
        door.admission.leave(each)
    assert door.counted == 0


def same(address: str | None) -> tuple[str | None, ...]:
    """The addresses that are counted together with this one."""
    return ("2001:db8::1", "2001:db8::2") if address is not None and ":" in address else (address,)
