"""Starting or joining a Ray cluster, for `adcore run` and `adcore predict`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from adcore.errors import ConfigError


def start_ray(options: Mapping[str, Any]) -> Any:
    """The module `ray`, with a new cluster on this machine, or joined to the one at `address`; `options` are those of ray.init.

    ConfigError where Ray is not installed, or refuses the options or the address. `ray.shutdown()` leaves the cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would send usage statistics
    try:
        import ray
    except ImportError:
        raise ConfigError('--executor ray needs one more package: pip install "adcore[ray]"') from None
    here = {} if "address" in options else {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        ray.init(logging_level="ERROR", log_to_driver=False, **here, **options)
    except Exception as error:  # Ray raises many types for a wrong option or address
        raise ConfigError(f"--executor ray: {last_line(error)}") from None
    return ray


def last_line(error: BaseException) -> str:
    """The type of an engine's error, and the last line of its text, which mostly has the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"
