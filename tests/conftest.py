"""Eight host devices for the whole session, set before JAX is imported."""

import os

from flags import compile_cheaply

compile_cheaply("--xla_force_host_platform_device_count=8")
os.environ.setdefault("MPLBACKEND", "Agg")
