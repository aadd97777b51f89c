"""Scripts that Redis may forget at any time."""

from __future__ import annotations

from collections import deque
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from realtime.errors import Unavailable
from realtime.redis_client import RedisRefused
from realtime.redis_scripts import MAX_HELD, Script, Scripts

NUMBER = Script("return ARGV[1]")


class Server:
    """Obeys commands in their order, one when it is told to."""

    def __init__(self) -> None:
        self.sent: deque[tuple[tuple[Any, ...], Deferred[Any]]] = deque()
        self.known = True
        self.run: list[int] = []

    def command(self, *args: Any) -> Deferred[Any]:
        reply: Deferred[Any] = Deferred()
        self.sent.append((args, reply))
        return reply

    def obey(self) -> None:
        """Obey the next command."""
        if not self.sent:
            return
        (verb, *args), reply = self.sent.popleft()
        if verb == "EVALSHA" and not self.known:
            reply.errback(RedisRefused("NOSCRIPT No matching script."))
            return
        if verb.startswith("EVAL"):
            self.known = True
            self.run.append(args[-1])
        reply.callback(args)

    def forget(self) -> None:
        """Forget the script."""
        self.known = False


class ScriptsTests(SynchronousTestCase):
    """`Scripts`."""

    @given(st.lists(st.sampled_from(["run", "obey", "forget"])))
    def test_order(self, steps: list[str]) -> None:
        """Scripts run once each, in the order asked for, whenever Redis forgets them."""
        server = Server()
        scripts = Scripts(server.command)
        replies = []
        for step in steps:
            if step == "run":
                replies.append(scripts.run(NUMBER, (), (len(replies),)))
            else:
                getattr(server, step)()
        while server.sent:
            server.obey()
        self.assertEqual(server.run, list(range(len(replies))))
        for reply in replies:
            self.successResultOf(reply)

    def test_too_many(self) -> None:
        """No more wait than a bound; the others are refused at once."""
        server = Server()
        server.forget()
        scripts = Scripts(server.command)
        scripts.run(NUMBER, (), (0,))
        server.obey()
        replies = [scripts.run(NUMBER, (), (number,)) for number in range(1, MAX_HELD + 2)]
        self.failureResultOf(replies.pop(), Unavailable)
        while server.sent:
            server.obey()
        for reply in replies:
            self.successResultOf(reply)
