"""Eight host devices for the whole session, set before JAX is imported.

Tests compile many small programs and run each a few times, so the compiler's dear
passes are off.
"""

import os

FLAGS = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
os.environ.setdefault("MPLBACKEND", "Agg")
