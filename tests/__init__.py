"""The tests: `python -m twisted.trial -j 4 tests`."""

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # bench, which uses some of what is here, does without
    pass
else:
    # A shared machine may stall any example: how long one takes says nothing.
    slow = [HealthCheck.too_slow]
    settings.register_profile("realtime", deadline=None, suppress_health_check=slow)
    settings.load_profile("realtime")
