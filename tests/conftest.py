"""Eight host devices, and settings for quick tests, for the whole session."""

import os

import pytest
from flags import compile_cheaply

# Before JAX is imported.
compile_cheaply("--xla_force_host_platform_device_count=8")
os.environ.setdefault("MPLBACKEND", "Agg")
# Operations need not name the lines they come from.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")


@pytest.fixture
def compiled():
    """The names of XLA's compilations so far, growing; nothing else is counted."""
    import jax

    names, listening = [], [True]

    def listen(event, duration, **_):
        if listening and event.endswith("backend_compile_duration"):
            names.append(event)

    # JAX before 0.9 has no public way to take a listener away again.
    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    listening.clear()
