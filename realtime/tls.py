"""The certificate that the server shows, read anew when it is told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.ssl import CertificateOptions, TLSVersion
from zope.interface import implementer

from realtime.errors import ConfigurationError


@implementer(IOpenSSLContextFactory)
class Certificates:
    """A certificate, its chain and its key, in two PEM files (a context factory of Twisted's).

    New connections are shown what was read last. Raises `ConfigurationError`.
    """

    def __init__(self, cert: str, key: str) -> None:
        self._cert = cert
        self._key = key
        self._context: Any = None
        self.load()

    def load(self) -> None:
        """Read the files. Raises `ConfigurationError`, and keeps what it has."""
        chain = self._chain()
        try:
            private = load_pem_private_key(_read("--tls-key", self._key), None)
            key = crypto.PKey.from_cryptography_key(private)  # type: ignore[arg-type]
        except (ValueError, TypeError):
            raise ConfigurationError(
                f"--tls-key {self._key}: is no private key in PEM without a passphrase"
            ) from None
        options = CertificateOptions(
            privateKey=key,
            certificate=chain[0],
            extraCertChain=chain[1:],
            acceptableProtocols=[b"http/1.1"],
            raiseMinimumTo=TLSVersion.TLSv1_2,
        )
        try:
            context = options.getContext()
            context.check_privatekey()
        except SSL.Error:
            raise ConfigurationError(
                f"--tls-key {self._key}: is not the key of the certificate in {self._cert}"
            ) from None
        self._context = context

    def getContext(self) -> Any:
        """What a new connection is served with."""
        return self._context

    def _chain(self) -> list[crypto.X509]:
        try:
            found = x509.load_pem_x509_certificates(_read("--tls-cert", self._cert))
        except ValueError:
            raise ConfigurationError(
                f"--tls-cert {self._cert}: has no certificate in PEM"
            ) from None
        return [crypto.X509.from_cryptography(each) for each in found]


def _read(option: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{option} {path}: {error.strerror}") from None
