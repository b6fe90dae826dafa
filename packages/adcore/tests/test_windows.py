"""What adcore imports is there on Windows, too."""

from __future__ import annotations

import subprocess
import sys

POSIX_ONLY = ("fcntl", "resource", "pwd", "grp", "termios")
IMPORT_ALL = f"""
import builtins, importlib, pkgutil
import adcore

original = builtins.__import__

def without(name, globals=None, locals=None, fromlist=(), level=0):
    # other libraries look at the platform before they import these
    if name in {POSIX_ONLY} and (globals or {{}}).get("__name__", "").startswith("adcore"):
        raise ModuleNotFoundError(f"no module {{name}}: imported by {{globals['__name__']}}")
    return original(name, globals, locals, fromlist, level)

builtins.__import__ = without
names = [found.name for found in pkgutil.walk_packages(adcore.__path__, "adcore.")]
for name in names:
    importlib.import_module(name)
from adcore.experiments.domains import peak_memory_mb
print(len(names), set(peak_memory_mb()) >= {{"process"}})
"""


def test_every_module_can_be_imported_without_what_posix_alone_has() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    count, measured = done.stdout.split()
    assert int(count) > 80
    assert measured == "True"
