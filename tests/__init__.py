"""The tests: `python -m twisted.trial -j 4 tests`."""
