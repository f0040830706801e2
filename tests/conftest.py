"""Eight host devices, and rare garbage collections, for the whole session."""

import gc
import os

from flags import compile_cheaply

# Before JAX is imported.
compile_cheaply("--xla_force_host_platform_device_count=8")
os.environ.setdefault("MPLBACKEND", "Agg")
# Rare: what JAX has traced and compiled stays, and each collection goes through it.
gc.set_threshold(100_000, 20, 100)
