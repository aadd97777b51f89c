"""The tests: `python -m twisted.trial -j 4 tests`."""

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # bench, which uses some of what is here, does without
    pass
else:
    # Machines that are busy are slow, which is no failure.
    settings.register_profile(
        "any_machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("any_machine")
