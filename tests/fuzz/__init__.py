"""Fuzzing by coverage, with atheris: see `__main__.py`."""
