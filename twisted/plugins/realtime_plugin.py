"""`twistd realtime`."""

from twisted.application.service import ServiceMaker

realtime = ServiceMaker(
    "Realtime server",
    "realtime.service",
    "Realtime messaging for browsers and programs: WebSockets, topics, REST.",
    "realtime",
)
