"""Tokens: where they are found, what they come to, and the ways in which they are forged."""

from __future__ import annotations

import json
import string
from typing import Any

import jwt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from marketfeed.access import tokens as auth
from marketfeed.access.keys import KeySet, VerifyKey
from marketfeed.access.tokens import LEEWAY, MAX_SUBJECT, MAX_TOKEN, BadToken, TokenVerifier, subprotocol, token_from
from marketfeed.http.head import BadRequest
from marketfeed.model.identity import Identity, StreamPattern
from tests.conftest import LogCapture
from tests.strategies import json_values, property_test
from tests.tokens import (
    ALGORITHMS,
    GOOD,
    HOUR,
    NOW,
    SECRET,
    forged,
    jwk,
    key_set,
    private_key,
    public_bytes,
    public_key,
    segment,
    signed,
)

ALICE = Identity("alice", None, NOW + HOUR)
HEADER = {"alg": "HS256", "typ": "JWT"}


def verifier(keys: KeySet | None = None, **expected: str) -> TokenVerifier:
    """One with the secret, at the moment `NOW`."""
    return TokenVerifier(lambda: keys or key_set("HS256"), lambda: NOW, **expected)


def fault(token: str, keys: KeySet | None = None, **expected: str) -> str:
    """Why a token is refused: in words that hold no part of it."""
    with pytest.raises(BadToken) as caught:
        verifier(keys, **expected).verify(token)
    text = str(caught.value)
    assert len(text) < 200
    assert not any(part in text for part in token.split(".") if len(part) > 8)
    assert caught.value.__cause__ is None
    return text


class TestVerify:
    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    def test_a_good_token(self, algorithm: str) -> None:
        """Its bearer is its subject, until its end, with every public stream; other claims do not matter."""
        assert verifier(key_set(algorithm)).verify(signed(algorithm, iat=0, jti=5, scope=[{}])) == ALICE

    def test_patterns(self) -> None:
        """They are read with the user in the place of `${sub}`."""
        identity = verifier().verify(signed(streams=["depth@*", "orders@${sub}"]))
        assert identity.patterns == (StreamPattern("depth", ("", "")), StreamPattern("orders", ("alice",)))

    @pytest.mark.parametrize("streams", [None, "depth@*", {}, ["depth"], [1]])
    def test_bad_patterns(self, streams: Any) -> None:
        """They are no reason to permit more, or less: the token is refused."""
        assert fault(signed(streams=streams)).startswith("the token's streams: ")

    @pytest.mark.parametrize("sub", [None, "", 5, True, ["alice"], {}, "a" * (MAX_SUBJECT + 1)])
    def test_a_bad_subject(self, sub: Any) -> None:
        """There is no user without a name."""
        expected = "the token's sub is missing or bad: expected a string of 1 to 256 characters"
        assert fault(signed(sub=sub)) == expected
        assert fault(signed(claims={"exp": GOOD["exp"]})) == expected

    @pytest.mark.parametrize("sub", ["a" * MAX_SUBJECT, "*", "é", "auth0|5f7c8ec7", " "])
    def test_a_subject_may_be_any_text(self, sub: str) -> None:
        """Only of streams it must be careful."""
        assert verifier().verify(signed(sub=sub)).user == sub

    @pytest.mark.parametrize(
        "exp",
        [None, "1800000000", True, [], {}, int(NOW) * 1000, 10**30, 10**400, 253402300800, -(10**15)],
    )
    def test_a_token_must_have_an_end(self, exp: Any) -> None:
        """Its time must be one: not text, not in milliseconds, not infinite in all but name."""
        expected = "the token's exp is missing or bad: expected a time in seconds since 1970"
        assert fault(signed(exp=exp)) in (expected, "the token's claims are no JSON object")
        assert fault(signed(claims={"sub": "alice"})) == expected

    @pytest.mark.parametrize("end", ["Infinity", "NaN", "-Infinity", "1e999"])
    def test_an_end_that_is_no_number(self, end: str) -> None:
        """Python's own reader of JSON would take these."""
        fault(forged(HEADER, f'{{"sub":"alice","exp":{end}}}'.encode(), SECRET))

    @pytest.mark.parametrize("nbf", [None, "0", False, [], int(NOW) * 1000])
    def test_a_bad_beginning(self, nbf: Any) -> None:
        """It may be missing, but not be bad."""
        assert fault(signed(nbf=nbf)) == "the token's nbf is missing or bad: expected a time in seconds since 1970"

    @pytest.mark.parametrize(
        "payload", [b"", b"[]", b"5", b"{", b'"x"', b"null", b"\xff", b'{"sub":"\\ud800"}', b"[" * 3000]
    )
    def test_claims_that_are_no_object(self, payload: bytes) -> None:
        """They are signed all the same."""
        assert fault(forged(HEADER, payload, SECRET)) == "the token's claims are no JSON object"

    def test_deep_claims(self) -> None:
        """In a claim that is looked at, and in one that is not."""
        for claim in ("streams", "else"):
            payload = f'{{"sub":"alice","exp":{GOOD["exp"]},"{claim}":{"[" * 2500}{"]" * 2500}}}'.encode()
            fault(forged(HEADER, payload, SECRET))


class TestTimes:
    def at(self, now: float, **claims: Any) -> Identity | str:
        try:
            return TokenVerifier(lambda: key_set("HS256"), lambda: now).verify(signed(**claims))
        except BadToken as error:
            return str(error)

    @pytest.mark.parametrize("exp", [int(NOW), NOW + 0.5])
    def test_the_end(self, exp: float) -> None:
        """A token is good until its end, to the instant, as a connection is that was made with it: no leeway."""
        assert self.at(exp - 0.001, exp=exp) == Identity("alice", None, exp)
        assert self.at(exp, exp=exp) == "the token has expired"
        assert self.at(exp + LEEWAY - 1, exp=exp) == "the token has expired"
        assert self.at(exp + 1e6, exp=exp) == "the token has expired"
        assert self.at(NOW, exp=0) == self.at(NOW, exp=-1) == "the token has expired"

    @pytest.mark.parametrize("nbf", [int(NOW), NOW + 0.5])
    def test_the_beginning(self, nbf: float) -> None:
        """It is good for the leeway before its beginning, to the instant."""
        assert self.at(nbf + 1, nbf=nbf) == ALICE
        assert self.at(nbf, nbf=nbf) == ALICE
        assert self.at(nbf - LEEWAY, nbf=nbf) == ALICE
        assert self.at(nbf - LEEWAY - 0.001, nbf=nbf) == "the token is not valid yet (nbf)"
        assert self.at(nbf - 1e6, nbf=nbf) == "the token is not valid yet (nbf)"

    def test_when_it_was_issued_does_not_matter(self) -> None:
        """RFC 7519 gives `iat` no such meaning."""
        assert self.at(NOW, iat=NOW + 1e6) == ALICE


class TestOrigin:
    @pytest.mark.parametrize("aud", ["feed", ["feed"], ["other", "feed"], ["feed", 5]])
    def test_the_audience(self, aud: Any) -> None:
        """One, or several with ours among them."""
        assert verifier(audience="feed").verify(signed(aud=aud)) == ALICE

    @pytest.mark.parametrize("aud", [None, "", "fee", "feedback", "Feed", [], ["other"], [["feed"]], 5, {"feed": 1}])
    def test_another_audience(self, aud: Any) -> None:
        """It must be ours to the letter."""
        assert fault(signed(aud=aud), audience="feed").startswith("the token is not for this server")
        assert fault(signed(), audience="feed").startswith("the token is not for this server")

    @pytest.mark.parametrize("aud", ["feed", "", ["feed"], [], 5])
    def test_an_audience_where_none_is_expected(self, aud: Any) -> None:
        """The token is meant for a server that knows itself by this name; we do not."""
        assert fault(signed(aud=aud)) == "the token is for an audience (aud), and this server has been given none"
        assert verifier().verify(signed(aud=None)) == ALICE

    def test_the_issuer(self) -> None:
        """To the letter, if one is expected; else it does not matter."""
        assert verifier(issuer="https://id.example").verify(signed(iss="https://id.example")) == ALICE
        assert verifier().verify(signed(iss="https://id.example")) == verifier().verify(signed(iss=5)) == ALICE

    @pytest.mark.parametrize("iss", [None, "", "https://id.example/", "https://id", ["https://id.example"], 5])
    def test_another_issuer(self, iss: Any) -> None:
        """None is another one too."""
        assert fault(signed(iss=iss), issuer="https://id.example").startswith("the token is from another issuer")
        assert fault(signed(), issuer="https://id.example").startswith("the token is from another issuer")


class TestForgeries:
    @pytest.mark.parametrize("alg", ["none", "NONE", "None", "nOnE", "", None, 0, [], "HS384", "hs256", "HS256 "])
    @pytest.mark.parametrize("keys", ALGORITHMS)
    def test_no_algorithm_or_another(self, alg: Any, keys: str) -> None:
        """Neither without a signature, nor with an empty secret, nor with the right one."""
        for secret in (None, b"", SECRET):
            token = forged({"alg": alg, "typ": "JWT"}, GOOD, secret)
            assert fault(token, key_set(keys)) == f"the token's alg is not the one of its key: expected {keys}"
        assert fault(forged({}, GOOD, SECRET), key_set(keys)).startswith("the token's alg is not the one")

    @pytest.mark.parametrize("header", [b'{"alg":"none","alg":"HS256"}', b'{"alg":"HS256","alg":"none"}'])
    def test_two_algorithms(self, header: bytes) -> None:
        """Whichever of them a reader takes, there is no signature."""
        fault(forged(header, GOOD, None))

    @pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
    def test_a_public_key_as_a_secret(self, algorithm: str) -> None:
        """Key confusion: the attacker signs with what everybody knows, in any of its forms."""
        pem = public_bytes(algorithm)
        for secret in (pem, pem.strip(), pem.decode().strip().encode("utf-16"), json.dumps(jwk(algorithm)).encode()):
            for alg in ("HS256", algorithm):
                fault(forged({"alg": alg}, GOOD, secret), key_set(algorithm))

    def test_a_key_among_others_is_not_confused_either(self) -> None:
        """The name of an RSA key and the algorithm of the secret that is there too."""
        keys = KeySet({"rsa": VerifyKey("RS256", public_key("RS256"))}, VerifyKey("HS256", SECRET))
        for secret in (SECRET, public_bytes("RS256")):
            assert "expected RS256" in fault(forged({"alg": "HS256", "kid": "rsa"}, GOOD, secret), keys)
        assert verifier(keys).verify(signed("RS256", headers={"kid": "rsa"})) == ALICE
        assert verifier(keys).verify(signed()) == ALICE

    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    def test_another_key_of_the_type(self, algorithm: str) -> None:
        """Not even when the token brings it along (`jwk`), or says where it is (`jku`, `x5u`)."""
        other = private_key(algorithm, 1)
        headers: dict[str, Any] = {"jku": "https://evil.example/jwks", "x5u": "https://evil.example/key.pem"}
        if algorithm != "HS256":
            headers["jwk"] = jwk(algorithm, 1)
        for header in (None, headers):
            assert (
                fault(jwt.encode(GOOD, other, algorithm, header), key_set(algorithm))
                == "the token's signature is not valid"
            )

    @pytest.mark.parametrize("algorithm", ALGORITHMS)
    def test_no_part_can_be_changed(self, algorithm: str) -> None:
        """Another subject, another signature, a shorter one, none."""
        header, claims, signature = signed(algorithm).split(".")
        other = segment(json.dumps({**GOOD, "sub": "bob"}).encode())
        changed = ("B" if signature[0] == "A" else "A") + signature[1:]
        for token in (
            f"{header}.{other}.{signature}",
            f"{header}.{claims}.{changed}",
            f"{header}.{claims}.{signature[:-4]}",
            f"{header}.{claims}.",
            f"{header}.{claims}",
        ):
            assert fault(token, key_set(algorithm)) == "the token's signature is not valid"

    @pytest.mark.parametrize("kid", ["2", "", "../../../dev/null", "/dev/null", "1\0", "' OR 1=1", "key", "__class__"])
    def test_names_of_keys_are_names(self, kid: str) -> None:
        """No path, no query, no attribute: one that is not there is unknown, whatever the token is signed with."""
        keys = KeySet({"1": VerifyKey("HS256", SECRET), "3": VerifyKey("HS256", SECRET)}, None)
        assert verifier(keys).verify(signed(headers={"kid": "1"})) == ALICE
        for secret in (SECRET, b""):
            token = forged({**HEADER, "kid": kid}, GOOD, secret)
            assert fault(token, keys) == "the token is signed with a key (kid) that is not known here"

    def test_without_a_name_among_several(self) -> None:
        """Keys are not tried in turn."""
        keys = KeySet({"1": VerifyKey("HS256", SECRET), "2": VerifyKey("HS256", SECRET)}, None)
        assert fault(signed(), keys) == "the token does not say which key has signed it (kid)"

    @pytest.mark.parametrize("kid", [5, True, ["1"], {}])
    def test_a_name_that_is_none(self, kid: Any) -> None:
        """Even where names are of no importance."""
        assert fault(forged({**HEADER, "kid": kid}, GOOD, SECRET)) == "the token's kid is no string"

    @pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"crit": []}, {"b64": False, "crit": ["b64"]}])
    def test_demands_that_are_not_known(self, header: dict[str, Any]) -> None:
        """RFC 7515, section 4.1.11: then the token is not valid."""
        assert "demands an extension (crit)" in fault(forged({**HEADER, **header}, GOOD, SECRET))

    def test_a_detached_payload(self) -> None:
        """RFC 7797 without its `crit`."""
        fault(forged({**HEADER, "b64": False}, GOOD, SECRET))


class TestAnyText:
    @pytest.mark.parametrize(
        "token",
        [
            "",
            ".",
            "..",
            "...",
            "a",
            "a.b.c",
            "e30",
            "e30.e30.",
            ".e30.",
            "é.é.é",
            "\ud800",
            "\0",
            "bnVsbA.e30.",
            "W10.W10.",
        ],
    )
    def test_what_is_no_token(self, token: str) -> None:
        """One word for all of it."""
        assert fault(token) in (
            "the token is no JWT",
            "the token's alg is not the one of its key: expected HS256",
        )

    def test_a_deep_header(self) -> None:
        """It is looked at before the signature."""
        assert fault(forged(b'{"alg":' + b"[" * 3000, GOOD, SECRET)) == "the token is no JWT"

    def test_nesting(self) -> None:
        """32 levels of the header and of the claims, on every Python."""
        for levels, is_refused in ((31, False), (32, True), (500, True), (1500, True)):
            nest = "[" * levels + "]" * levels
            header = b'{"alg":"HS256","x":%b}' % nest.encode()
            claims = (json.dumps(GOOD)[:-1] + f',"x":{nest}}}').encode()
            if is_refused:
                assert fault(forged(header, GOOD, SECRET)) == "the token is no JWT"
                assert fault(forged(HEADER, claims, SECRET)) == "the token's claims are no JSON object"
            else:
                assert verifier().verify(forged(header, GOOD, SECRET)).user == "alice"
                assert verifier().verify(forged(HEADER, claims, SECRET)).user == "alice"
        fault(forged(b'{"alg":"HS256","x":' + b"[" * 2500 + b"]" * 2500 + b"}", GOOD, SECRET))

    def test_long_tokens(self) -> None:
        """They are not even looked at."""
        assert fault("a" * (MAX_TOKEN + 1)) == "the token is longer than 8192 characters"
        assert fault(signed(more="x" * MAX_TOKEN)) == "the token is longer than 8192 characters"
        long = signed(more="x" * 5900)
        assert MAX_TOKEN - 400 < len(long) <= MAX_TOKEN
        assert verifier().verify(long) == ALICE

    @property_test
    @given(st.text(st.characters()) | st.text(string.ascii_letters + string.digits + "-_.", max_size=60))
    @example("a" * 100000)
    def test_any_text_is_refused(self, text: str) -> None:
        """With a `BadToken` that can be sent."""
        for algorithm in ALGORITHMS:
            fault(text, key_set(algorithm)).encode()

    @property_test
    @given(
        st.dictionaries(st.sampled_from(("alg", "kid", "crit", "b64", "typ")), json_values),
        st.dictionaries(st.sampled_from(("exp", "nbf", "sub", "aud", "iss", "streams")), json_values),
    )
    def test_any_header_and_claims(self, header: dict[str, Any], claims: dict[str, Any]) -> None:
        """Rightly signed, and with any values where good ones would be: an identity, or a `BadToken`."""
        for token in (forged({**HEADER, **header}, {**GOOD, **claims}, SECRET), forged(HEADER, claims, SECRET)):
            try:
                identity = verifier().verify(token)
            except BadToken as error:
                str(error).encode()
                continue
            assert isinstance(identity.user, str)
            assert NOW < identity.expires_at < 1e12

    @property_test
    @given(st.integers(0, 400), st.characters(max_codepoint=127))
    def test_any_character_changed(self, place: int, character: str) -> None:
        """A token that is not as it was signed is refused."""
        token = signed()
        place %= len(token)
        changed = token[:place] + character + token[place + 1 :]
        if changed != token:
            fault(changed)


class TestRemembered:
    @pytest.fixture(autouse=True)
    def clock(self) -> None:
        self.now = NOW
        self.keys = key_set("HS256")

    @pytest.fixture
    def remembering(self) -> TokenVerifier:
        return TokenVerifier(lambda: self.keys, lambda: self.now)

    def test_the_same_token_is_verified_once(self, remembering: TokenVerifier) -> None:
        """Its second bearer gets the same identity."""
        token = signed()
        assert remembering.verify(token) is remembering.verify(token)
        assert remembering.verify(signed(sub="bob")) == Identity("bob", None, NOW + HOUR)

    def test_it_expires_all_the_same(self, remembering: TokenVerifier) -> None:
        """And it is good again should the clock be put right."""
        token = signed()
        remembering.verify(token)
        self.now = NOW + HOUR
        with pytest.raises(BadToken, match="expired"):
            remembering.verify(token)
        self.now -= 1
        assert remembering.verify(token) == ALICE

    def test_its_beginning_counts_all_the_same(self, remembering: TokenVerifier) -> None:
        """When the clock was put back."""
        token = signed(nbf=NOW)
        remembering.verify(token)
        self.now = NOW - LEEWAY - 1
        with pytest.raises(BadToken, match="not valid yet"):
            remembering.verify(token)

    def test_new_keys_end_it(self, remembering: TokenVerifier) -> None:
        """A key is taken out because its tokens are not to be trusted any more."""
        token = signed()
        remembering.verify(token)
        self.keys = KeySet({}, VerifyKey("HS256", SECRET[::-1]))
        with pytest.raises(BadToken, match="signature"):
            remembering.verify(token)

    def test_refused_tokens_are_not_remembered(self, remembering: TokenVerifier) -> None:
        """They would push out good ones, at no cost to whoever sends them."""
        for token in ("nonsense", forged(HEADER, GOOD, b"another"), signed(exp=NOW - HOUR)):
            with pytest.raises(BadToken):
                remembering.verify(token)
        assert not remembering._verified

    def test_the_oldest_are_forgotten(self, remembering: TokenVerifier, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is remembered has a bound, and what was forgotten is verified anew."""
        monkeypatch.setattr(auth, "_REMEMBERED", 3)
        tokens = [signed(sub=user) for user in "abcd"]
        identities = [remembering.verify(token) for token in tokens]
        assert len(remembering._verified) == 3
        newest_first = zip(tokens[::-1], identities[::-1], strict=True)
        assert [remembering.verify(token) is identity for token, identity in newest_first] == [
            True,
            True,
            True,
            False,
        ]

    def test_no_token_is_kept(self, remembering: TokenVerifier, logged: LogCapture) -> None:
        """Neither in memory nor in the log."""
        token = signed()
        remembering.verify(token)
        assert token not in repr(remembering._verified)
        assert logged.events == []


class TestTokenFrom:
    @pytest.mark.parametrize(
        ("headers", "query"),
        [
            ({"authorization": "Bearer a.b.c"}, ""),
            ({"authorization": "bearer a.b.c"}, ""),
            ({"authorization": "BEARER \t a.b.c "}, ""),
            ({"authorization": "Basic eDp5, Bearer a.b.c"}, ""),
            ({"authorization": "Bearer a.b.c, Bearer a.b.c"}, ""),
            ({"sec-websocket-protocol": "marketfeed, bearer.a.b.c"}, ""),
            ({"sec-websocket-protocol": "bearer.a.b.c"}, "streams=trade@A"),
            ({}, "token=a.b.c"),
            ({}, "streams=trade@A&token=a.b.c&x="),
            ({}, "token=a%2Eb%2ec"),
            ({}, "token=&token=a.b.c"),
            ({"authorization": "Bearer a.b.c", "sec-websocket-protocol": "bearer.a.b.c"}, "token=a.b.c"),
        ],
    )
    def test_where_a_token_may_be(self, headers: dict[str, str], query: str) -> None:
        """In any of three places, or the same in several."""
        assert token_from(headers, query) == "a.b.c"

    @pytest.mark.parametrize(
        ("headers", "query"),
        [
            ({}, ""),
            ({"authorization": ""}, "token="),
            ({"authorization": "Bearer"}, "token"),
            ({"authorization": "Bearer "}, "Token=a"),
            ({"authorization": "Basic eDp5"}, "xtoken=a"),
            ({"authorization": "a.b.c"}, "x=token=a"),
            ({"authorization": "BearerX a.b.c"}, "&&"),
            ({"sec-websocket-protocol": "marketfeed"}, ""),
            ({"sec-websocket-protocol": "bearer., bearer, x.bearer.a"}, ""),
            ({"sec-websocket-protocol": ", ,"}, ""),
            ({"cookie": "token=a"}, ""),
        ],
    )
    def test_where_there_is_none(self, headers: dict[str, str], query: str) -> None:
        """Credentials of another scheme are for somebody else, and an empty token is none."""
        assert token_from(headers, query) is None

    @pytest.mark.parametrize(
        ("headers", "query"),
        [
            ({"authorization": "Bearer a, Bearer b"}, ""),
            ({"authorization": "Bearer a"}, "token=b"),
            ({"authorization": "Bearer a", "sec-websocket-protocol": "bearer.b"}, ""),
            ({"sec-websocket-protocol": "bearer.a, marketfeed, bearer.b"}, ""),
            ({"sec-websocket-protocol": "bearer.a"}, "token=A"),
            ({}, "token=a&token=b"),
        ],
    )
    def test_two_tokens(self, headers: dict[str, str], query: str) -> None:
        """A request with two is malformed; the message shows neither."""
        with pytest.raises(BadRequest, match=r"^there are two different tokens in the request$"):
            token_from(headers, query)

    @property_test
    @given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40))
    def test_any_text_is_searched(self, authorization: str, protocols: str, query: str) -> None:
        """There is no other failure, and what is found is not empty."""
        try:
            found = token_from({"authorization": authorization, "sec-websocket-protocol": protocols}, query)
        except BadRequest:
            return
        assert found is None or found


class TestSubprotocol:
    @pytest.mark.parametrize(
        ("offered", "answered"),
        [
            ("", None),
            ("marketfeed", "marketfeed"),
            ("marketfeed, bearer.a.b.c", "marketfeed"),
            ("bearer.a.b.c, marketfeed", "marketfeed"),
            ("other,marketfeed", "marketfeed"),
            ("other, another", "other"),
            ("bearer.a.b.c, other", "other"),
            ("bearer.a.b.c", None),
            ("BEARER.a, Bearer.b, bearer.", None),
            (", ,other", "other"),
            ('"quoted", two words, é, other', "other"),
            ("bearer", "bearer"),
        ],
    )
    def test_what_is_answered(self, offered: str, answered: str | None) -> None:
        """Ours, else the first that is no token, else none."""
        assert subprotocol({"sec-websocket-protocol": offered}) == answered

    def test_without_an_offer(self) -> None:
        """There is nothing to choose from."""
        assert subprotocol({}) is None

    @property_test
    @given(
        st.lists(st.sampled_from(("marketfeed", "bearer.", "Bearer.x", "bearer.a.b.c", "graphql-ws")) | st.text("ab. "))
    )
    def test_a_token_is_never_answered(self, offers: list[str]) -> None:
        """What is answered was offered, and is no token."""
        answer = subprotocol({"sec-websocket-protocol": ",".join(offers)})
        assert answer is None or (answer in map(str.strip, offers) and not answer.lower().startswith("bearer."))
