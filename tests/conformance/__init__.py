"""Conformance to RFC 6455 and RFC 7692, by the Autobahn|Testsuite."""
