"""What holds for every test: one thread for each process, since pytest runs one on every core, and no test by the clock."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; the workers and what tests start inherit it

from hypothesis import HealthCheck, settings

settings.register_profile("suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")
