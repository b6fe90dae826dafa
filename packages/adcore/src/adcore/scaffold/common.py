"""The files that every new plugin package has; @name@ and the like are filled in."""

PYPROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "@name@"
version = "0.1.0"
description = "@class@, @what@ for adcore."
readme = "README.md"
license = "MIT"
license-files = ["LICENSE"]
requires-python = ">=3.11"
dependencies = ["adcore>=@lowest@,<@next@"]

[project.optional-dependencies]
test = ["pytest>=8", "ruff"]

[project.entry-points.adcore]
@name@ = "@module@.plugin"

[tool.hatch.build.targets.wheel]
packages = ["src/@module@"]

[tool.pytest.ini_options]
addopts = "--import-mode=importlib"
testpaths = ["tests"]

[tool.ruff]
line-length = 120
src = ["src"]

[tool.ruff.lint]
select = ["B", "E", "F", "I", "RUF", "SIM", "UP", "W"]
"""
README = """\
# @name@

@class@, @what@ for [adcore](https://pypi.org/project/adcore/).

```sh
pip install @name@
@use@
```

## For those who work on it

```sh
pip install -e ".[test]"
pytest
ruff check . && ruff format --check .
adcore check-plugin @name@
```

Without a network, where hatchling and adcore are installed: `pip install --no-build-isolation --no-deps -e .`

`src/@module@/plugin.py` tells adcore what there is, without importing torch; `tests/test_conformance.py` holds the checks that
every @kind@ passes. The licence is MIT; to choose another, change `LICENSE` and `pyproject.toml`.
"""
CI = """\
name: ci
on: [push, pull_request]
jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.11"
      - run: pip install ".[test]"
      - run: ruff check . && ruff format --check .
      - run: pytest
"""
LICENSE = """\
MIT License

Copyright (c) @year@ the authors of @name@

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""
