"""Tests of docs/grafana: the dashboard and the alert rules ask for what the server exports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import TestCase

from tests.support.http import InMemory, make_api

FOLDER = Path(__file__).parent.parent / "docs" / "grafana"
# What Prometheus says itself of what it scrapes.
PROMETHEUS = {"up"}
# Words of PromQL that look like metrics: functions, and labels in braces or after `by`.
CALLS = re.compile(r"[a-z_]+(?=\s*\()")
LABELS = re.compile(r"\{[^}]*\}|\bby\s*\([^)]*\)|\[[^\]]*\]")
WORDS = {"and", "or", "unless", "by"}


def names(expression: str) -> set[str]:
    """The metrics that an expression asks for."""
    bare = CALLS.sub("", LABELS.sub("", expression))
    return set(re.findall(r"[a-z_:][a-z0-9_:]+", bare)) - WORDS


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    """Whether two panels have some of the grid in common."""
    return all(
        one[start] < other[start] + other[size] and other[start] < one[start] + one[size]
        for start, size in (("x", "w"), ("y", "h"))
    )


class GrafanaTests(TestCase):
    """What is there for Grafana and Prometheus."""

    def setUp(self) -> None:
        """Ask the server for what it exports."""
        ask = InMemory(self, make_api(self).resource)
        text = ask("GET", "/metrics", {"Accept": "text/plain"}).body.decode()
        self.exported = {
            sample.name
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        self.dashboard: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
        rules = yaml.safe_load((FOLDER / "alerts.yml").read_text())
        self.rules = [rule for group in rules["groups"] for rule in group["rules"]]

    def expressions(self) -> Iterator[str]:
        """All of the dashboard's, those of its variables included."""
        for panel in self.dashboard["panels"]:
            for target in panel.get("targets", ()):
                yield target["expr"]
        for variable in self.dashboard["templating"]["list"]:
            if variable["type"] == "query":
                yield re.sub(r", \w+\)$", ")", variable["query"])

    def test_names(self) -> None:
        """What a metric is called is found in an expression."""
        expression = 'sum by (a) (rate(b_total{c=~"$d"}[5m])) / e_seconds > 0.05 and up'
        self.assertEqual(names(expression), {"b_total", "e_seconds", "up"})

    def test_dashboard_asks_for_what_there_is(self) -> None:
        """Every metric of the dashboard is exported."""
        asked = set().union(*map(names, self.expressions()))
        self.assertEqual(asked - self.exported, set())

    def test_alerts_ask_for_what_there_is(self) -> None:
        """Every metric of the alert rules is exported, or Prometheus' own."""
        asked = set().union(*(names(rule["expr"]) for rule in self.rules))
        self.assertEqual(asked - self.exported - PROMETHEUS, set())

    def test_everything_is_shown(self) -> None:
        """Every metric of the server's own is somewhere on the dashboard."""
        shown = set().union(*map(names, self.expressions()))
        ours = {name for name in self.exported if name.startswith("realtime_")}
        self.assertEqual(ours - shown, set())

    def test_panels(self) -> None:
        """Panels have ids and places of their own, within the grid, and say what they show."""
        panels = self.dashboard["panels"]
        ids = [panel["id"] for panel in panels]
        self.assertEqual(len(ids), len(set(ids)))
        for panel in panels:
            place = panel["gridPos"]
            self.assertLessEqual(place["x"] + place["w"], 24)
            self.assertTrue(panel["title"])
            self.assertTrue(panel["type"] == "row" or panel["description"])
        for one, other in combinations(panels, 2):
            self.assertFalse(overlap(one["gridPos"], other["gridPos"]), (one, other))

    def test_rules(self) -> None:
        """Each alert has a name of its own, a severity, and says what happens and what to do."""
        found = [rule["alert"] for rule in self.rules]
        self.assertEqual(len(found), len(set(found)))
        for rule in self.rules:
            self.assertIn(rule["labels"]["severity"], ("warning", "critical"))
            self.assertEqual(set(rule["annotations"]), {"summary", "description"})
            self.assertEqual(rule["expr"].count("("), rule["expr"].count(")"))
