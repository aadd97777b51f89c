"""`twistd realtime`: the assembly. The only module that chooses implementations."""

from __future__ import annotations

import gc
import os
import socket
import sys
import time
from collections.abc import Callable
from secrets import token_urlsafe
from typing import Any

from autobahn.twisted.resource import WebSocketResource
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from realtime import __version__
from realtime.addresses import Proxies
from realtime.admission import Admission
from realtime.audit import Audit, AuditFile
from realtime.auth import Auth
from realtime.backends import Backends
from realtime.bounds import client_policy, http_limits, websocket_options
from realtime.credentials import Credentials, make_tokens
from realtime.drain import Drain, close_all
from realtime.errors import CloseCode, ConfigurationError, RealtimeError
from realtime.fastpath import connection_class
from realtime.first_run import add_first_user, page_url, welcome
from realtime.http import HttpSite
from realtime.hub import Hub
from realtime.interfaces import Deadline
from realtime.listening import inherited, listen, listen_unix, protect, remove
from realtime.memory import Reclaimer
from realtime.metrics import Counters, Metrics
from realtime.node import Node
from realtime.nodes import Nodes
from realtime.options import Options
from realtime.origins import Origins
from realtime.outgoing import make_outgoing
from realtime.parts import Around, MemoryParts, Parts, RedisParts
from realtime.process import allow_files, take_signals
from realtime.reload import Reloading
from realtime.rest import RestApi, ServerInfo, Watched
from realtime.rest_console import Console
from realtime.rules import Rules
from realtime.samples import Samples
from realtime.sessions_sqlite import Sessions
from realtime.settings import Settings
from realtime.site import MAX_SILENT, Site
from realtime.sse import Streams
from realtime.stores import make_stores, run_alone, state_directory
from realtime.tls import Certificates
from realtime.tracing import Tracing
from realtime.turns import call_soon_of
from realtime.websocket import Factory
from realtime.wheel import TimerWheel
from realtime.workers import Workers

_log = Logger()

# Seconds that the last webhooks have when the server stops.
OUTGOING_SECONDS = 2.0
# File descriptors beyond the WebSockets': HTTP and silent connections, the databases, logs.
SPARE_FILES = 1200 + MAX_SILENT
# A threshold that lets the collector look at new objects as often as by default, and at all
# objects a hundredth as often: with many connections that look is the longest pause there is.
GC_THRESHOLD = (700, 10, 1000)


def makeService(options: Options) -> RealtimeService | Workers:
    """What `twistd realtime` runs. A mistake is one line on standard error, exit status 1."""
    from twisted.internet import reactor

    settings = options.settings
    try:
        state = state_directory(settings.state)
        service: RealtimeService | Workers
        if settings.workers > 1:
            # Makes the signing key where there is none, which the workers then find.
            make_tokens(settings, state, reactor)
            service = Workers(settings, options.given, reactor)
        else:
            service = RealtimeService(settings, reactor, options.read)
        # Before twistd leaves the terminal and takes standard error, so that a mistake is seen.
        service.bind()
        password = token_urlsafe(12)
        if run_alone(lambda alone: add_first_user(settings, alone, password)):
            welcome(settings, service.port, password)
        # When the reactor has taken them itself.
        reactor.callWhenRunning(take_signals, reactor, service.hurry, service.reload)
    except (ConfigurationError, RealtimeError) as error:
        raise SystemExit(f"realtime: {error}") from None
    return service


def _where(settings: Settings, port: int) -> str:
    """Where the server listens, in words."""
    if settings.unix is not None:
        return f"the unix socket {settings.unix}"
    return f"{settings.host} port {port}: the page is at {page_url(settings, port)}"


class RealtimeService(Service):
    """One server process. `bind` takes its port; it serves once started and all is ready."""

    def __init__(
        self, settings: Settings, reactor: Any, read: Callable[[], Settings] | None = None
    ) -> None:
        self._settings = settings
        self._reactor = reactor
        state = state_directory(settings.state)
        self._stores = make_stores(state, reactor)
        counters = Counters()
        proxies = Proxies(settings.trusted_proxy)
        file = None if settings.audit_log is None else AuditFile(settings.audit_log, counters)
        self._audit = audit = Audit(file, reactor, proxies)
        self._credentials = Credentials(
            settings, state, counters, reactor, audit, lambda kid: self.node.revoke("key", kid)
        )
        tokens = self._credentials.tokens
        origins = Origins(settings.origin)
        hub = Hub[Any](counters, call_soon_of(reactor, settings.fast_path))
        deadlines: TimerWheel[Deadline] = TimerWheel(int(reactor.seconds()))
        rules = Rules(settings.topics, settings.strict_topics)
        self._outgoing = make_outgoing(settings, state, counters, reactor)
        around = Around(
            settings,
            state,
            rules,
            Sessions(self._stores.database, reactor, session_ttl=tokens.refresh_ttl),
            tokens.refresh_ttl,
            counters,
            deadlines,
            reactor,
            lambda name: self.node.lost(name),
        )
        self._parts: Parts = RedisParts(around) if settings.redis else MemoryParts(around)
        self.node = Node(
            self._parts.broker,
            self._parts.presence,
            hub,
            rules,
            counters,
            reactor,
            deadlines,
            max_connections=settings.max_connections,
            node_id=self._parts.node_id,
            events=self._outgoing.events,
            cluster=self._parts.cluster,
        )
        nodes = Nodes(self.node, self._parts.cluster)
        if self._parts.cluster is not None:
            self._parts.cluster.start(self.node.deliver_direct, nodes.answer, self._about)
        self._auth = Auth(
            tokens,
            self._stores.accounts,
            self._parts.sessions,
            reactor,
            self.node.revoke,
            login_limits=self._parts.login_limits,
            rotate_refresh_tokens=settings.rotate_refresh_tokens,
            audit=audit,
            counters=counters,
        )
        policy = client_policy(settings, self._auth.authenticate, self._outgoing.hooks)
        admission = Admission(
            self.node,
            policy,
            origins,
            frozenset(settings.connect_role),
            proxies=proxies,
            per_user=settings.max_connections_per_user,
            per_address=settings.max_connections_per_address,
            token_in_url=settings.token_in_url,
            audit=audit,
        )
        websocket = Factory(
            admission,
            websocket_options(settings),
            reactor,
            connection_class(settings.fast_path),
        )
        self._samples = Samples(counters)
        tracing = Tracing(self.node, admission, self._auth.authenticate)
        api = RestApi(
            self.node,
            self._auth,
            metrics=Metrics(counters),
            info=self._info,
            origins=origins,
            ws_resource=WebSocketResource(websocket),
            backends=Backends(self._auth, self._stores.keys, audit),
            nodes=nodes,
            proxies=proxies,
            streams=Streams(admission, nodes, settings.max_queue_bytes),
            console=Console(self._samples, tracing),
            audit=audit,
        )
        bounds: dict[str, Any] = {
            "limits": http_limits(settings),
            "origins": origins,
            "counters": counters,
        }
        self._http = HttpSite(api.resource, reactor, **bounds)
        self._watched = HttpSite(Watched(api.resource), reactor, **bounds)
        site = Site(self.node, websocket, self._http)
        self._doors = site.doors
        self._site: Any = site
        certificates = None
        if settings.tls_cert is not None and settings.tls_key is not None:
            certificates = Certificates(settings.tls_cert, settings.tls_key)
            self._site = TLSMemoryBIOFactory(certificates, False, self._site)
        self.reload = Reloading(
            settings,
            read or (lambda: settings),
            self.node,
            origins,
            certificates,
            self._credentials,
            audit,
        )
        self._reclaimer = Reclaimer()
        self._ticks = LoopingCall(self._tick)
        self._ticks.clock = reactor
        # What listens, and for whom: first as sockets, then as ports of the reactor.
        self._sockets: list[tuple[socket.socket, Any]] = []
        self._ports: list[Any] = []
        self._starting: Deferred[None] | None = None
        self._drain: Drain | None = None
        self._hurried = False
        # The unix socket, where this process has made one.
        self._made: str | None = None
        self.port = settings.port

    def _tick(self) -> None:
        self._samples.beat(self._reactor.seconds(), time.monotonic())
        self.node.advance()
        self._parts.tick()
        counters = self.node.counters
        strangers = len(self._doors) + len(self._http.crowd)
        self._reclaimer.note(counters.active_connections, counters.closed_slow_consumers, strangers)

    def _about(self) -> dict[str, Any]:
        """What the node says of itself, which `/info` tells everybody."""
        health = self.node.health()
        return {
            "node_id": self.node.node_id,
            "version": __version__,
            "uptime_seconds": health.uptime_seconds,
            "connections": health.active_connections,
            "status": "healthy" if health.reason is None else health.reason,
        }

    def _info(self) -> ServerInfo:
        settings = self._settings
        return ServerInfo(
            host=settings.host,
            port=self.port,
            max_connections=settings.max_connections,
            heartbeat_interval_secs=settings.heartbeat_interval,
            client_timeout_secs=settings.client_timeout,
            max_frame_size=settings.max_frame_size,
        )

    def bind(self) -> None:
        """Take the port; clients may connect, and wait. Raises `ConfigurationError`."""
        settings = self._settings
        main = inherited()
        if main is None and settings.unix is not None:
            main = listen_unix(settings.unix)
            self._made = settings.unix
        main = main or listen(settings.host, settings.port)
        self.port = 0 if settings.unix is not None else main.getsockname()[1]
        self._sockets.append((main, self._site))
        if settings.metrics_port:
            watched = listen(settings.host, settings.metrics_port)
            self._sockets.append((watched, self._watched))

    def startService(self) -> None:
        """Open the stores, then serve."""
        super().startService()
        if not self._sockets:
            self.bind()
        allow_files(self._settings.max_connections + SPARE_FILES)
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._give_up)

    async def _start(self) -> None:
        await self._stores.database.open()
        await self._parts.connect()
        await self._credentials.start()
        await self._auth.start()
        await self._stores.keys.start(self._reactor)
        await self._parts.open()
        await self._outgoing.open()
        if not self.running:
            return
        self._ticks.start(1.0)
        for listening, factory in self._sockets:
            port = self._reactor.adoptStreamPort(listening.fileno(), listening.family, factory)
            self._ports.append(port)
            listening.close()
        if self._settings.unix is not None:
            protect(self._settings.unix)
        # What start-up has made stays; the collector need not look at it again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLD)
        self._audit.note("start", node=self.node.node_id)
        _log.info(
            "Listening on {where} (node {node})",
            node=self.node.node_id,
            where=_where(self._settings, self.port),
        )

    def _give_up(self, failure: Failure) -> None:
        problem = failure.value
        if not self.running:
            _log.info("Stopped while starting: {problem}", problem=str(problem))
            return
        _log.critical("The server cannot start: {problem}", problem=str(problem))
        # twistd has made sys.stderr a part of the log.
        print(f"realtime: {problem}", file=sys.__stderr__, flush=True)
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        self._reactor.stop()

    async def _stop(self) -> None:
        if self._starting is not None:
            await self._starting
        if self._ports:
            # Still listening: who asks is told that there are other nodes to go to.
            self.node.drain()
            if not self._hurried:
                self._drain = Drain(self.node, self._reactor, self._settings.drain_seconds)
                await self._drain.start()
            await gatherResults([port.stopListening() for port in self._ports])
            if self._made is not None:
                remove(self._made)
        for listening, _ in self._sockets:
            listening.close()
        restarted = close_all(self.node, CloseCode.SERVICE_RESTART)
        ended = gatherResults([restarted, self._http.close_all(), self._watched.close_all()])
        ended.addTimeout(self._settings.shutdown_timeout, self._reactor)
        ended.addErrback(lambda _: None)  # the process's end will close what is left
        await ended
        if self._ticks.running:
            self._ticks.stop()
        await self._auth.stop()
        await self._credentials.stop()
        await self._stores.keys.stop()
        await self._outgoing.stop(OUTGOING_SECONDS)
        await self._parts.stop()
        await self._stores.close()
        self._audit.note("stop", node=self.node.node_id)
        self._audit.close()

    def stopService(self) -> Deferred[None]:
        """Tell clients, close their connections one by one (1012), and close the stores."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def hurry(self) -> None:
        """Close all connections at once, if the service stops, or when it does."""
        self._hurried = True
        if self._drain is not None:
            self._drain.hurry()
