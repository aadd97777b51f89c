"""Attacks on a real server, and what they get: `python -m tests.hostile`."""
