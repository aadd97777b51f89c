"""How a Redis server is reached: TCP, TLS or a Unix socket; where sentinels say it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from realtime.errors import ConfigurationError, Unavailable
from realtime.redis_url import RedisAddress

_log = Logger()


@implementer(IStreamClientEndpoint)
class RedisEndpoint:
    """Where the server is now: its address says so, or the first of the sentinels that knows.

    `make_link` makes a protocol with `execute_command` to ask a sentinel by; `note` is told why
    there is no connection. Each step takes at most `patience` seconds.
    """

    def __init__(
        self,
        address: RedisAddress,
        reactor: Any,
        patience: float,
        make_link: Callable[[], Any],
        note: Callable[[BaseException | None], object],
    ) -> None:
        self._address = address
        self._reactor = reactor
        self._patience = patience
        self._make_link = make_link
        self._note = note

    def __repr__(self) -> str:
        """As Twisted logs it when it tries again."""
        return f"Redis at {self._address}"

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """See the interface."""
        return Deferred.fromCoroutine(self._connect(factory)).addErrback(self._failed)

    def _failed(self, failure: Failure) -> Failure:
        self._note(failure.value)
        return failure

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        address = self._address
        if address.service is None:
            host, port = address.hosts[0] if address.hosts else ("", 0)
        else:
            host, port = await self._master(address.service)
        return await self._endpoint(host, port).connect(factory)

    async def _master(self, service: str) -> tuple[str, int]:
        factory = Factory.forProtocol(self._make_link)
        factory.noisy = False
        for host, port in self._address.hosts:
            link: Any = None
            try:
                link = await self._endpoint(host, port).connect(factory)
                asked = link.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
                found = await asked.addTimeout(self._patience, self._reactor)
                if found:
                    return found[0].decode(), int(found[1])
            except Exception as error:
                _log.debug("A sentinel does not answer: {why}", why=str(error))
            finally:
                if link is not None:
                    link.transport.loseConnection()
        raise Unavailable(f"no sentinel knows of {service}")

    def _endpoint(self, host: str, port: int) -> IStreamClientEndpoint:
        address, patience = self._address, self._patience
        if address.path is not None:
            unix: IStreamClientEndpoint = UNIXClientEndpoint(  # type: ignore[no-untyped-call]
                self._reactor, address.path, timeout=patience
            )
            return unix
        endpoint = HostnameEndpoint(self._reactor, host, port, timeout=patience)
        if not address.tls:
            return endpoint
        return wrapClientTLS(_creator(address, host), endpoint)


def _creator(address: RedisAddress, host: str) -> Any:
    if not address.verify:
        return _Unverified(host)
    roots = None
    if address.authorities is not None:
        try:
            pem = Path(address.authorities).read_bytes()
            found = [Certificate.loadPEM(each) for each in _certificates(pem)]
            if not found:
                raise OSError
            roots = trustRootFromCertificates(found)  # type: ignore[no-untyped-call]
        except (OSError, SSL.Error) as error:
            why = getattr(error, "strerror", None) or "holds no certificate"
            raise ConfigurationError(
                f"--redis: ssl_ca_certs {address.authorities}: {why}"
            ) from None
    return optionsForClientTLS(host, trustRoot=roots)


def _certificates(pem: bytes) -> list[bytes]:
    end = b"-----END CERTIFICATE-----"
    return [part + end for part in pem.split(end)[:-1]]


@implementer(IOpenSSLClientConnectionCreator)
class _Unverified:
    """Encrypts, and believes any server: for services whose certificates nobody has signed."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._context = CertificateOptions(verify=False).getContext()

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        """See the interface."""
        connection = SSL.Connection(self._context, None)
        connection.set_tlsext_host_name(self._host.encode("idna"))
        return connection
