"""Listing with a hundred installed plugins, one of them broken, beside Python's own start."""

import os
import subprocess
import sys
import time

from adcore.testing.site import write_distribution

PLUGIN = """
from adcore.cards import ModelCard
from adcore.hookspecs import hookimpl

@hookimpl
def adcore_register_models():
    return [ModelCard("toy-NUMBER", "toy:Toy", "toy", "T", "P", 2020, "S")]
"""
LIST = "from adcore.cli import main; import sys; sys.argv[1:] = ['list-models']; main()"


def seconds(code, environment):
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    return time.perf_counter() - start


def test_a_hundred_plugins_are_listed_at_once(benchmark, tmp_path):
    for number in range(100):
        code = PLUGIN.replace("NUMBER", str(number)) if number else "1 / 0"
        write_distribution(tmp_path, f"toy-{number}", {f"toy_{number}.py": code}, f"toy_{number}")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    seconds(LIST, environment)  # compiles the modules
    benchmark.pedantic(seconds, (LIST, environment), rounds=3)
    listing = min(seconds(LIST, environment) for _ in range(5))
    start = min(seconds("pass", environment) for _ in range(5))
    print(f"\n100 plugins: {listing:.2f} s, {listing / start:.0f} times an empty Python")
    assert listing < 1 or listing / start < 50  # on a busy machine everything takes longer
