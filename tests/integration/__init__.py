"""Tests with real processes, clients and browsers."""
