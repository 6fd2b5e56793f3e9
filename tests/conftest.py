"""Settings for the whole suite."""

from hypothesis import HealthCheck, settings

# A busy machine is no failure: no test asserts a time.
settings.register_profile("wootz", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("wootz")
