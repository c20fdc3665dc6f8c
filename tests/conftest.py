"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# How long an example takes says nothing about it: a machine may stand still at any moment.
settings.register_profile(
    "at_any_speed",
    settings.default,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("at_any_speed")
