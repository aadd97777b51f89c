"""The benchmark suite: `python -m bench` (docs/performance/method.rst)."""
