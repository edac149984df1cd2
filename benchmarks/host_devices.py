"""A benchmark once for every number of devices that a CPU is divided into, each in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterable


def run_each(counts: Iterable[str]) -> None:
    """Starts this command again with so many devices each time, its flag --host_devices emptied."""
    for count in counts:
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}",
        }
        # the last of several values counts, however the first was written
        subprocess.run([sys.executable, *sys.argv, "--host_devices="], check=True, env=environment)
