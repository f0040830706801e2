"""Eight host devices, and settings for quick tests, for the whole session."""

import os

from flags import compile_cheaply

# Before JAX is imported.
compile_cheaply("--xla_force_host_platform_device_count=8")
os.environ.setdefault("MPLBACKEND", "Agg")
# Operations need not name the lines they come from.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
