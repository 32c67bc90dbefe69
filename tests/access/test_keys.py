"""The keys that verify tokens: what a file may hold, what is refused and how, and files that change."""

from __future__ import annotations

import base64
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from marketfeed.access.keys import CHECK_SECONDS, MAX_FILE, BadKey, KeyFiles, KeySet, VerifyKey, load_keys
from tests.conftest import LogCapture
from tests.strategies import json_values
from tests.tokens import SECRET, certificate, jwk, private_pem, public_bytes, public_key, write_jwks

PUBLIC = ("RS256", "ES256", "EdDSA")


def fault(key: str | Path | None, jwks: str | Path | None = None) -> str:
    """The line about a file that cannot be used, which begins with its name."""
    with pytest.raises(BadKey) as caught:
        load_keys(key and str(key), jwks and str(jwks))
    line = str(caught.value)
    assert line.startswith(f"{key or jwks}: ")
    assert "\n" not in line
    return line.removeprefix(f"{key or jwks}: ")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "key"


class TestKeyFile:
    @pytest.mark.parametrize(
        ("content", "secret"),
        [
            (SECRET, SECRET),
            (SECRET + b"\n", SECRET),
            (SECRET + b"\r\n", SECRET),
            (SECRET + b"\n\n", SECRET + b"\n"),
            (SECRET + b"\r", SECRET + b"\r"),
            (b" " + SECRET + b" ", b" " + SECRET + b" "),
            (bytes(range(32)), bytes(range(32))),
            (b"\xff" * 32, b"\xff" * 32),
            (b"1" * 32, b"1" * 32),
        ],
    )
    def test_a_secret_is_all_of_the_file_but_one_newline(self, path: Path, content: bytes, secret: bytes) -> None:
        """Any bytes will do; they are good for HS256 alone."""
        path.write_bytes(content)
        assert load_keys(str(path), None) == KeySet({}, VerifyKey("HS256", secret))

    @pytest.mark.parametrize("algorithm", PUBLIC)
    def test_the_type_of_a_public_key_decides_its_algorithm(self, path: Path, algorithm: str) -> None:
        """Whatever stands around it in the file."""
        path.write_bytes(b"a comment\n" + public_bytes(algorithm))
        assert load_keys(str(path), None) == KeySet({}, VerifyKey(algorithm, public_key(algorithm)))

    @pytest.mark.parametrize("content", [b"x" * 31, b"x" * 31 + b"\n", b"x" * 31 + b"\r\n", b"x"])
    def test_a_short_secret(self, path: Path, content: bytes) -> None:
        """The newline does not count."""
        path.write_bytes(content)
        size = len(content.strip())
        assert fault(path) == f"is a secret of {size} bytes; expected 32 or more, chosen at random"

    @pytest.mark.parametrize("content", [b"", b"\n", b" \n\t"])
    def test_an_empty_file(self, path: Path, content: bytes) -> None:
        """Blanks are no secret."""
        path.write_bytes(content)
        assert fault(path) == "is empty; expected an HMAC secret of 32 bytes or more, or a key"

    def test_a_file_that_is_none(self, path: Path) -> None:
        """The line has the reason."""
        assert fault(path) == "No such file or directory"
        assert fault(path.parent) == "Is a directory"
        with pytest.raises(BadKey, match=r"^a\\x00b: expected the path of a file$"):
            load_keys("a\0b", None)

    def test_a_huge_file(self, path: Path) -> None:
        """Somebody else's file is not read into memory."""
        path.write_bytes(b"x" * MAX_FILE)
        assert load_keys(str(path), None).unnamed is not None
        path.write_bytes(b"x" * (MAX_FILE + 1))
        assert fault(path) == "is larger than 1048576 bytes; expected a key"

    @pytest.mark.parametrize("algorithm", PUBLIC)
    def test_a_private_key(self, path: Path, algorithm: str) -> None:
        """The daemon needs no private key, and the line says how to get the public one."""
        path.write_bytes(private_pem(algorithm))
        assert fault(path) == "is a private key; expected the public one, from: openssl pkey -pubout -in FILE"

    def test_a_certificate(self, path: Path) -> None:
        """So it is for a certificate."""
        path.write_bytes(b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
        assert "expected its public key, from: openssl x509 -pubkey" in fault(path)

    @pytest.mark.parametrize(
        ("algorithm", "bits"), [("RSA of 1024 bits", " of 1024 bits"), ("ES384", ""), ("Ed448", "")]
    )
    def test_weak_keys_and_other_kinds(self, path: Path, algorithm: str, bits: str) -> None:
        """What would be accepted is named."""
        path.write_bytes(public_bytes(algorithm))
        assert fault(path) == f"is a key of another kind{bits}; expected RSA of 2048 bits or more, EC P-256 or Ed25519"

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda pem: pem[:100],
            lambda pem: pem.replace(b"M", b"!"),
            lambda pem: pem.replace(b"-----", b"----"),
            lambda pem: pem.replace(b"-----", b"---- ", 1),
            lambda pem: pem.replace(b"PUBLIC KEY", b"SSH2 PUBLIC KEY"),
            lambda pem: pem.decode().encode("utf-16"),
        ],
    )
    def test_a_spoilt_public_key_is_no_secret(self, path: Path, spoil: Any) -> None:
        """Everybody knows it, and could sign with it."""
        path.write_bytes(spoil(public_bytes("RS256")))
        assert fault(path).startswith("is not a public key in PEM that can be read; expected RSA")

    @pytest.mark.parametrize(
        "content",
        [
            public_bytes("ES256", Encoding.DER),
            public_bytes("RS256", Encoding.DER),
            base64.b64encode(public_bytes("RS256", Encoding.DER)),
            base64.encodebytes(public_bytes("EdDSA", Encoding.DER)),
            certificate(),
            base64.b64encode(certificate()),
            public_key("EdDSA").public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
            public_key("ES256").public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        ],
        ids=["DER", "RSA DER", "base64", "base64 in lines", "certificate", "x5c", "ssh", "ssh ecdsa"],
    )
    def test_public_keys_in_other_forms_are_no_secrets(self, path: Path, content: bytes) -> None:
        """Nor are these; the line says how the right form begins."""
        path.write_bytes(content)
        assert fault(path).endswith("expected PEM, which begins with -----BEGIN PUBLIC KEY-----")

    @pytest.mark.parametrize("wrap", [lambda key: key, lambda key: {"keys": [key]}, lambda key: [key]])
    def test_json_is_no_secret(self, path: Path, wrap: Any) -> None:
        """A JWKS was given as the wrong option."""
        path.write_text(json.dumps(wrap(jwk("RS256")), indent=1))
        assert fault(path).endswith("expected an HMAC secret or a key in PEM (a JWKS belongs into --auth-jwks)")

    def test_a_key_is_not_shown(self) -> None:
        """Not where a structure is logged by mistake."""
        key = VerifyKey("HS256", SECRET)
        assert "secret" not in repr(key) + str(key) + repr(KeySet({"a": key}, key))
        assert repr(key) == "VerifyKey('HS256')"


class TestJwks:
    @pytest.mark.parametrize("algorithm", PUBLIC)
    def test_one_key(self, path: Path, algorithm: str) -> None:
        """It is for tokens that name it, and for those that name none."""
        key = VerifyKey(algorithm, public_key(algorithm))
        keys = load_keys(None, write_jwks(path, jwk(algorithm, kid="a", use="sig", alg=algorithm)))
        assert keys == KeySet({"a": key}, key)

    def test_several_keys(self, path: Path) -> None:
        """Each under its name, those of no use here left out, and none for tokens without a name."""
        keys = load_keys(
            None,
            write_jwks(
                path,
                *(jwk(algorithm, kid=algorithm) for algorithm in PUBLIC),
                jwk("RS256", kid="for secrets", use="enc"),
                jwk("RS256", kid="another use", use=["sig"]),
                jwk("RS256", kid="signs", key_ops=["sign"]),
                jwk("RS256", kid="operates", key_ops=None, alg="RS512"),
                jwk("RS256", kid="no list", key_ops="verify"),
                jwk("ES384", kid="another curve"),
                jwk("EdDSA", kid="unknown", kty="LWE"),
                {"kid": "nothing"},
                {"kty": ["RSA"]},
                jwk("EdDSA"),
            ),
        )
        assert keys == KeySet({name: VerifyKey(name, public_key(name)) for name in PUBLIC}, None)

    @pytest.mark.parametrize(
        ("key", "line"),
        [
            ({"kty": "oct", "k": "c2VjcmV0"}, "is a secret; expected public keys (a secret belongs into --auth-key)"),
            ({"kty": "oct", "use": "enc"}, "is a secret; expected public keys (a secret belongs into --auth-key)"),
            (jwk("RS256", private=True), "is private; expected public keys, which have no d"),
            (jwk("ES256", private=True, use="enc"), "is private; expected public keys, which have no d"),
            (jwk("RS256", kid=7), "has a kid that is no string"),
            (jwk("ES256", x=None), "is not as RFC 7518, section 6, has it for ES256"),
            (jwk("ES256", x="AAAA"), "is not as RFC 7518, section 6, has it for ES256"),
            (jwk("EdDSA", x=5), "is not as RFC 7518, section 6, has it for EdDSA"),
            (jwk("RS256", e="!"), "is not as RFC 7518, section 6, has it for RS256"),
            (jwk("RS256", n=None), "is not as RFC 7518, section 6, has it for RS256"),
        ],
    )
    def test_what_does_not_belong_there(self, path: Path, key: dict[str, Any], line: str) -> None:
        """The line says which key it is."""
        assert fault(None, write_jwks(path, jwk("EdDSA", kid="good"), key)) == f"key 2 {line}"

    def test_a_weak_key(self, path: Path) -> None:
        """Somebody would be mistaken about its worth."""
        weak = jwk("RSA of 1024 bits")
        assert fault(None, write_jwks(path, weak)).startswith("key 1 is a key of another kind of 1024 bits; expected")

    @pytest.mark.parametrize("keys", [[], [jwk("RS256", use="enc")], [{}]])
    def test_without_a_key_of_use(self, path: Path, keys: list[Any]) -> None:
        """No token could ever be verified."""
        assert fault(None, write_jwks(path, *keys)).startswith("has no key that verifies tokens; expected RSA")

    def test_names_must_tell_keys_apart(self, path: Path) -> None:
        """Neither the same one twice, nor none for any of several."""
        two = jwk("RS256", kid="a"), jwk("ES256", kid="a")
        assert fault(None, write_jwks(path, *two)) == "two of its keys have the same kid"
        two = jwk("RS256"), jwk("ES256")
        assert fault(None, write_jwks(path, *two)).startswith("none of its keys has a kid; expected one for each")

    @pytest.mark.parametrize(
        "text",
        [
            "{",
            "[]",
            "5",
            "{}",
            '{"keys":{}}',
            '{"keys":[5]}',
            json.dumps(jwk("RS256")),
            "\ufeff",
            "[" * 100000,
            "x" * 40,
        ],
    )
    def test_what_is_no_jwks(self, path: Path, text: str) -> None:
        """The line shows the outermost of one."""
        path.write_text(text)
        assert fault(None, path) == 'is no JWKS; expected {"keys":[…]} (a single key belongs into --auth-key)'

    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(st.dictionaries(st.sampled_from(("kty", "crv", "x", "y", "n", "e", "kid")), json_values), max_size=2)
    )
    def test_any_keys_are_read_or_refused(self, path: Path, keys: list[dict[str, Any]]) -> None:
        """There is no other failure; members of a good key are replaced with anything."""
        good = [jwk("ES256", kid="a"), jwk("RS256", kid="b"), jwk("EdDSA", kid="c")]
        for mixed in ([{**whole, **key} for whole in good for key in keys], keys):
            with suppress(BadKey):
                load_keys(None, write_jwks(path, *mixed))


class TestChoose:
    KEY, ONE, OTHER = (VerifyKey("HS256", name * 32) for name in (b"k", b"1", b"2"))

    def test_a_key_file_alone(self) -> None:
        """What the issuer calls the key is of no importance."""
        keys = KeySet({}, self.KEY)
        assert [keys.choose(kid) for kid in (None, "a", "")] == [self.KEY] * 3

    def test_several_named(self) -> None:
        """A token must name one that exists."""
        keys = KeySet({"1": self.ONE, "2": self.OTHER}, None)
        assert [keys.choose(kid) for kid in ("1", "2", "3", "", None)] == [self.ONE, self.OTHER, None, None, None]

    def test_a_key_file_and_a_jwks(self, path: Path, tmp_path: Path) -> None:
        """A token with a name gets the JWKS's key, one without gets the file's."""
        path.write_bytes(SECRET)
        keys = load_keys(str(path), write_jwks(tmp_path / "jwks", jwk("RS256", kid="1")))
        secret, public = VerifyKey("HS256", SECRET), VerifyKey("RS256", public_key("RS256"))
        assert [keys.choose(kid) for kid in (None, "1", "2")] == [secret, public, None]

    def test_no_file_at_all(self) -> None:
        """There is nothing to verify tokens with."""
        with pytest.raises(BadKey, match=r"^expected the file of a key, or of a JWKS$"):
            load_keys(None, None)


class TestKeyFiles:
    @pytest.fixture(autouse=True)
    def clock(self) -> None:
        self.now = 1000.0

    def files(self, path: Path, jwks: Path | None = None) -> KeyFiles:
        return KeyFiles(str(path), jwks and str(jwks), lambda: self.now)

    def write(self, path: Path, content: bytes) -> None:
        """Replace a file with one of another time, which need not be a later one."""
        written = path.stat().st_mtime_ns if path.exists() else 1_000_000_000_000
        path.write_bytes(content)
        os.utime(path, ns=(written - 1, written - 1))

    def test_a_change_is_seen_within_some_seconds(self, path: Path) -> None:
        """Until then, and as long as nothing changes, it is the same object."""
        self.write(path, SECRET)
        files = self.files(path)
        first = files.current()
        self.write(path, SECRET[::-1])
        self.now += CHECK_SECONDS - 0.001
        assert files.current() is first
        self.now += 0.001
        second = files.current()
        assert second == KeySet({}, VerifyKey("HS256", SECRET[::-1]))
        self.now += CHECK_SECONDS
        assert files.current() is second

    def test_a_change_of_either_file_is_seen(self, path: Path, tmp_path: Path) -> None:
        """Both belong to the set."""
        self.write(path, SECRET)
        jwks = tmp_path / "jwks"
        write_jwks(jwks, jwk("RS256", kid="1"))
        files = self.files(path, jwks)
        write_jwks(jwks, jwk("RS256", kid="another"))
        self.now += CHECK_SECONDS
        assert list(files.current().named) == ["another"]

    def test_another_file_in_its_place_is_seen(self, path: Path, tmp_path: Path) -> None:
        """As large, and of the same time."""
        self.write(path, SECRET)
        files = self.files(path)
        other = tmp_path / "other"
        other.write_bytes(SECRET[::-1])
        os.utime(other, ns=(path.stat().st_mtime_ns,) * 2)
        other.replace(path)
        self.now += CHECK_SECONDS
        assert files.current() == KeySet({}, VerifyKey("HS256", SECRET[::-1]))

    def test_a_process_that_goes_elsewhere(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As twistd does with --rundir: paths mean what they meant at the start."""
        path.write_bytes(SECRET)
        monkeypatch.chdir(path.parent)
        files = self.files(Path(path.name))
        (path.parent / "elsewhere").mkdir()
        monkeypatch.chdir(path.parent / "elsewhere")
        path.write_bytes(SECRET * 2)
        self.now += CHECK_SECONDS
        assert files.current() == KeySet({}, VerifyKey("HS256", SECRET * 2))

    def test_a_clock_that_is_put_back_hides_no_change(self, path: Path) -> None:
        """Or it would, for as long as it was put back."""
        self.write(path, SECRET)
        files = self.files(path)
        self.write(path, SECRET[::-1])
        self.now -= 3600
        assert files.current() == KeySet({}, VerifyKey("HS256", SECRET[::-1]))

    def test_a_broken_file_changes_nothing(self, path: Path, logged: LogCapture) -> None:
        """The old keys stay, and each fault is logged once; a good file ends it."""
        self.write(path, SECRET)
        files = self.files(path)
        first = files.current()

        def faults() -> list[str]:
            self.now += CHECK_SECONDS
            assert files.current() is first
            return [event["fault"] for event in logged.events if "fault" in event]

        self.write(path, b"short")
        short = f"{path}: is a secret of 5 bytes; expected 32 or more, chosen at random"
        assert faults() == [short]
        assert faults() == [short]
        path.unlink()
        gone = f"{path}: No such file or directory"
        assert faults() == [short, gone]
        assert faults() == [short, gone]
        self.write(path, SECRET[::-1])
        self.now += CHECK_SECONDS
        assert files.current() == KeySet({}, VerifyKey("HS256", SECRET[::-1]))
        assert [event["log_level"].name for event in logged.events] == ["error", "error", "info"]

    def test_a_file_that_comes_back_as_it_was(self, path: Path, logged: LogCapture) -> None:
        """It ends the fault too, so that the next one is logged again."""
        self.write(path, SECRET)
        files = self.files(path)
        for _ in range(2):
            path.rename(path.with_suffix(".aside"))
            self.now += CHECK_SECONDS
            files.current()
            path.with_suffix(".aside").rename(path)
            self.now += CHECK_SECONDS
            files.current()
        assert [event["log_level"].name for event in logged.events] == ["error", "info"] * 2

    def test_a_file_that_is_bad_from_the_start(self, path: Path) -> None:
        """There are no old keys to go on with."""
        with pytest.raises(BadKey, match="No such file"):
            self.files(path)
