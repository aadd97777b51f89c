"""A self-hosted realtime messaging server on Twisted."""

__version__ = "1.0.0"
