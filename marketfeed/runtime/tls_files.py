"""Certificates that this process shows, in PEM files that may be renewed while it runs.

1. A key and a chain of certificates are used only if all of it can be read, and the key is that of the first one; two
   of these only if their keys are of two kinds, so that each client can be shown the one that it can check.
2. When a connection is made, and at most every two seconds, the files are looked at. If any has changed, all are read
   again, and connections from then on get what is in them. Those that exist go on as they are.
3. Files that cannot be used, as in the middle of a renewal, change nothing; what is wrong with them is logged once.
4. What is wrong is one line, with the name by which the operator gave the file, and what is accepted.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from OpenSSL.crypto import X509, PKey

from marketfeed.runtime.logs import Log
from marketfeed.runtime.tls_connections import cause

__all__ = ["A_KEY", "CertificateFiles", "KeyAndChain", "Renewable", "file_stamp", "shown"]

A_KEY = "a PEM file with an unencrypted private key"
_A_CHAIN = "a PEM file of certificates"
_LOOK_SECONDS = 2.0
_BEGIN = re.compile(rb"-----BEGIN (?:X509 )?CERTIFICATE")


class CertificateFiles(msgspec.Struct, frozen=True):
    """Paths of PEM files. `certificate`: that of the key, first; `extra_chain`: may be empty.

    `names`: what the operator calls them.
    """

    private_key: str
    certificate: str
    extra_chain: str = ""
    names: tuple[str, str, str] = ("privateKey", "certKey", "extraCertChain")
    second: CertificateFiles | None = None
    """Those of a key of another kind."""

    @property
    def _paths(self) -> tuple[str, str, str]:
        return self.private_key, self.certificate, self.extra_chain

    def absolute(self) -> CertificateFiles:
        """The same files, wherever the process goes."""
        key, certificate, chain = [path and os.path.abspath(path) for path in self._paths]
        second = None if self.second is None else self.second.absolute()
        return CertificateFiles(key, certificate, chain, self.names, second)

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """The `file_stamp` of each."""
        second = () if self.second is None else self.second.stamp()
        return (*[file_stamp(path) for path in self._paths if path], *second)

    def read(self) -> KeyAndChain:
        """What is in them, which fits together. Raises ValueError."""
        of_key, of_certificate, of_chain = self.names
        key = _read_key(of_key, self.private_key)
        chain = _read_chain(of_certificate, self.certificate)
        if not _fit(chain[0], key):
            raise _unfit(
                of_certificate, self.certificate, f"its first certificate is not of the key in {of_key}", "that one"
            )
        if self.extra_chain:
            chain += [each for each in _read_chain(of_chain, self.extra_chain) if each not in chain]
        if self.second is None:
            return KeyAndChain(key, tuple(chain))
        second = self.second.read()
        if second.kind == _kind(key):
            raise _unfit(
                self.second.names[0],
                self.second.private_key,
                f"the key is of the same kind as that in {of_key}",
                "one of another kind, EC beside RSA",
            )
        return KeyAndChain(key, tuple(chain), second)


def file_stamp(path: str) -> tuple[int, int, int]:
    """Something that is another one as soon as a file has been written or replaced."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return 0, 0, 0  # reading it will tell why
    return status.st_mtime_ns, status.st_size, status.st_ino


class KeyAndChain(msgspec.Struct, frozen=True):
    """A private key, its certificate, and those that vouch for it."""

    key: PrivateKeyTypes
    chain: tuple[x509.Certificate, ...]
    second: KeyAndChain | None = None

    @property
    def kind(self) -> str:
        """Of the key: OpenSSL has room for one of each."""
        return _kind(self.key)

    @property
    def ends_at(self) -> datetime:
        """When the certificate ends, or the first of two."""
        end = self.chain[0].not_valid_after_utc
        return end if self.second is None else min(end, self.second.ends_at)

    def as_pem(self) -> bytes:
        """The chain and the key, as OpenSSL reads them from one file; without the second."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return b"".join([each.public_bytes(Encoding.PEM) for each in self.chain]) + key

    def as_options(self) -> dict[str, Any]:
        """As Twisted's `CertificateOptions` takes it."""
        return {
            "privateKey": PKey.from_cryptography_key(self.key),  # type: ignore[arg-type]  # it can sign, or this fails
            "certificate": X509.from_cryptography(self.chain[0]),
            "extraCertChain": [X509.from_cryptography(each) for each in self.chain[1:]],
        }


_Made = TypeVar("_Made")


class Renewable(Generic[_Made]):
    """What `make` makes of what is in the files. `now`: seconds on a clock that nobody sets. `name`: what the
    log calls who shows it.

    Raises ValueError when the files cannot be used now.
    """

    log = Log()

    def __init__(
        self, now: Callable[[], float], files: CertificateFiles, make: Callable[[KeyAndChain], _Made], name: str
    ) -> None:
        self._now = now
        self._files = files.absolute()  # twistd changes the directory later
        self._make = make
        self._name = name
        self._stamp = self._files.stamp()
        self.expires_at = 0.0
        """When the certificate that was read last ends, in s since 1970."""
        self._made, _ = self._load(files)
        self._fault = ""
        self._next_look = now() + _LOOK_SECONDS

    def current(self) -> _Made:
        """For the next connection."""
        if self._now() >= self._next_look:
            self._next_look = self._now() + _LOOK_SECONDS
            self._look()
        return self._made

    def _look(self) -> None:
        stamp = self._files.stamp()  # before the files are read: what is written meanwhile is seen the next time
        if stamp == self._stamp and not self._fault:
            return
        self._stamp = stamp
        try:
            self._made, until = self._load(self._files)
        except ValueError as error:
            before, self._fault = self._fault, str(error)
            if self._fault != before:
                line = "{name}: the certificate in use stays, for its renewal is unfit: {fault}"
                self.log.warn(line, name=self._name, fault=self._fault)
            return
        self._fault = ""
        self.log.info(
            "{name}: new connections get the renewed certificate, valid until {until}", name=self._name, until=until
        )

    def _load(self, files: CertificateFiles) -> tuple[_Made, str]:
        """What is made of the files, and the day until which the certificate is valid."""
        read = files.read()
        try:
            made = self._make(read)
        except Exception as error:
            at_fault = self._at_fault(files, read)
            raise _unfit(
                at_fault.names[1], at_fault.certificate, cause(error), "a certificate that OpenSSL accepts"
            ) from None
        self.expires_at = read.ends_at.timestamp()
        return made, read.ends_at.date().isoformat()

    def _at_fault(self, files: CertificateFiles, read: KeyAndChain) -> CertificateFiles:
        """Of which nothing can be made: the second, if it would go without."""
        if files.second is not None:
            try:
                self._make(msgspec.structs.replace(read, second=None))
            except Exception:
                return files
            return files.second
        return files


def _read_key(name: str, path: str) -> PrivateKeyTypes:
    text = _read(name, path, A_KEY)
    try:
        return load_pem_private_key(text, None)
    except TypeError:
        raise _unfit(name, path, "the key is encrypted", A_KEY) from None
    except Exception:
        raise _unfit(name, path, "no key can be read", A_KEY) from None


def _read_chain(name: str, path: str) -> list[x509.Certificate]:
    text = _read(name, path, _A_CHAIN)
    try:
        chain = x509.load_pem_x509_certificates(text)
    except Exception:
        raise _unfit(name, path, "no certificates can be read", _A_CHAIN) from None
    if len(chain) != len(_BEGIN.findall(text)):  # one that is cut short was passed over
        raise _unfit(name, path, "not all of its certificates can be read", _A_CHAIN)
    return chain


def _read(name: str, path: str, accepted: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise _unfit(name, path, error.strerror or "cannot be read", accepted) from None
    except ValueError:
        raise _unfit(name, path, "no path", accepted) from None


def _kind(key: PrivateKeyTypes) -> str:
    return type(key).__name__


def _fit(certificate: x509.Certificate, key: PrivateKeyTypes) -> bool:
    try:
        return certificate.public_key() == key.public_key()
    except Exception:
        return False  # a kind of key that is unknown here


def _unfit(name: str, path: str, fault: str, accepted: str) -> ValueError:
    return ValueError(f"{name}: {shown(path)}: {fault}; expected {accepted}")


def shown(text: str) -> str:
    """Text of the operator's in one line, and not too much of it."""
    return repr(text[:200])[1:-1]
