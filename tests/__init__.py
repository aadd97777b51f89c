"""The tests: `python -m twisted.trial -j 2 tests`."""
