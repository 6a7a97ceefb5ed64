"""How hypothesis searches.

By default the same examples every time, so that a change is never blamed for what chance found;
``pytest --hypothesis-profile=explore tests/property`` looks for new ones.
"""

from hypothesis import HealthCheck, settings

# No deadline: how long an example takes says more about the machine's load than about the code.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile(
    "explore", max_examples=3000, deadline=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile("steady")
