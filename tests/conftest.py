"""Eight host devices for the whole session, set before JAX is imported."""

import os

from flags import cheap_compilation

FLAGS = ["--xla_force_host_platform_device_count=8", *cheap_compilation()]

os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])
os.environ.setdefault("MPLBACKEND", "Agg")
