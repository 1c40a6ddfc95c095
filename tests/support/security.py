"""Certificates of a throwaway authority, and NATS's JWTs, for the tests of security."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nkeys
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


@dataclass
class Pair:
    """The files of a certificate and of its key."""

    cert: str
    key: str


class Authority:
    """A certificate authority of its own."""

    def __init__(self, folder: Path, name: str):
        self.folder = folder
        self._name = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        cert = (
            _builder(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(sign=True), critical=True)
            .add_extension(self._identifier(), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.file = str(folder / f"{name}.pem")
        Path(self.file).write_bytes(cert.public_bytes(serialization.Encoding.PEM))

    def _identifier(self) -> x509.SubjectKeyIdentifier:
        return x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())

    def issue(self, name: str, *, address: str = "127.0.0.1") -> Pair:
        """A certificate for a server at `address`, or for a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        cert = (
            _builder(_name(name), self._name, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]),
                critical=False,
            )
            .add_extension(authority, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pair = Pair(str(self.folder / f"{name}-cert.pem"), str(self.folder / f"{name}-key.pem"))
        Path(pair.cert).write_bytes(cert.public_bytes(serialization.Encoding.PEM))
        Path(pair.key).write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return pair


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(subject: x509.Name, issuer: x509.Name, key: Any) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
    )


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign,
        crl_sign=sign,
        encipher_only=False,
        decipher_only=False,
    )


# --- nkeys and JWTs -------------------------------------------------------------------------------


@dataclass
class Nkey:
    """A key pair of NATS."""

    seed: str
    public: str

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`."""
        return nkeys.from_seed(bytearray(self.seed.encode())).sign(data)


def nkey(kind: int = nkeys.PREFIX_BYTE_USER) -> Nkey:
    """A new key pair: of a user, an account or an operator."""
    seed = bytes(nkeys.encode_seed(os.urandom(32), kind))
    return Nkey(seed.decode(), nkeys.from_seed(bytearray(seed)).public_key.decode())


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _jwt(subject: Nkey, issuer: Nkey, name: str, claims: dict[str, Any]) -> str:
    body = {
        "iat": 1_700_000_000,
        "iss": issuer.public,
        "sub": subject.public,
        "name": name,
        "nats": {"version": 2, **claims},
    }
    body["jti"] = base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).decode()[:52]
    header = _b64(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
    signed = f"{header}.{_b64(json.dumps(body).encode())}"
    return f"{signed}.{_b64(issuer.sign(signed.encode()))}"


class Operator:
    """An operator with a system account and one account with JetStream."""

    def __init__(self) -> None:
        self._operator = nkey(nkeys.PREFIX_BYTE_OPERATOR)
        self._account = nkey(nkeys.PREFIX_BYTE_ACCOUNT)
        self._system = nkey(nkeys.PREFIX_BYTE_ACCOUNT)

    def config(self) -> str:
        """The server's part."""
        names = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
        some: dict[str, Any] = {**dict.fromkeys(names, -1), "wildcards": True}
        storage = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
        operator = self._operator
        accounts = [
            _jwt(self._system, operator, "SYS", {"type": "account", "limits": some}),
            _jwt(self._account, operator, "A", {"type": "account", "limits": {**some, **storage}}),
        ]
        return (
            f"operator: {_jwt(operator, operator, 'O', {'type': 'operator'})}\n"
            f"system_account: {self._system.public}\n"
            "resolver: MEMORY\n"
            "resolver_preload: {\n"
            f"  {self._system.public}: {accounts[0]}\n"
            f"  {self._account.public}: {accounts[1]}\n"
            "}\n"
        )

    def creds(self, name: str, *, foreign: bool = False) -> str:
        """The text of a user's credentials file; a foreign one is of an unknown account."""
        user = nkey()
        account = nkey(nkeys.PREFIX_BYTE_ACCOUNT) if foreign else self._account
        limits = {"subs": -1, "data": -1, "payload": -1}
        jwt = _jwt(user, account, name, {"type": "user", **limits})
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )
