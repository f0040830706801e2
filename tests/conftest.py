"""Eight host devices for the whole session, set before JAX is imported.

Tests compile many small programs and run each a few times, so the compiler's dear
passes are off: without fusion emitters and in one piece a program compiles in a third
of the time.
"""

import os

FLAGS = [
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
]

os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *FLAGS])
os.environ.setdefault("MPLBACKEND", "Agg")
