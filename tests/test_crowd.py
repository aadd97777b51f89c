"""Tests for `realtime.crowd`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from realtime.crowd import Crowd

ACTS = st.tuples(
    st.sampled_from(["idle", "amid", "served", "gone"]), st.integers(0, 5), st.sampled_from("abc")
)


class CrowdTests(SynchronousTestCase):
    """Who gives way."""

    def test_nobody(self) -> None:
        """Nobody has to go where nobody waits."""
        crowd = Crowd[int]()
        self.assertIsNone(crowd.first_to_go())
        crowd.serve(1, "a")
        self.assertIsNone(crowd.first_to_go())
        self.assertEqual(list(crowd), [1])

    @given(st.lists(ACTS))
    def test_model(self, acts: list[tuple[str, int, str]]) -> None:
        """It goes by the network with the most that wait, then idleness, then time."""
        crowd = Crowd[int]()
        model: list[tuple[int, str, str]] = []
        for state, connection, network in acts:
            model = [entry for entry in model if entry[0] != connection]
            if state == "gone":
                crowd.forget(connection)
                continue
            model.append((connection, network, state))
            if state == "served":
                crowd.serve(connection, network)
            else:
                crowd.wait(connection, network, idle=state == "idle")
        self.assertEqual(sorted(crowd), sorted(entry[0] for entry in model))
        self.assertEqual(len(crowd), len(model))
        waiting = [entry for entry in model if entry[2] != "served"]
        sizes = {name: sum(entry[1] == name for entry in waiting) for name in "abc"}
        heaviest = [entry for entry in waiting if sizes[entry[1]] == max(sizes.values())]
        first = {}
        for connection, network, _ in sorted(heaviest, key=lambda entry: entry[2] != "idle"):
            first.setdefault(network, connection)
        self.assertIn(crowd.first_to_go(), set(first.values()) or {None})
