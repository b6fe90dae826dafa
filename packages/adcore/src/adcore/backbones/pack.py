"""Weights as a wheel: a site without a network gets them the way it gets everything else."""

from __future__ import annotations

import base64
import hashlib
import re
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

from packaging.version import InvalidVersion, Version

from adcore import __version__
from adcore.backbones.resolve import WeightsFile, check_digest
from adcore.cards import BackboneCard
from adcore.errors import AdcoreError, ConfigError, WeightsError
from adcore.files import atomic_path, sha256_file
from adcore.plugins import WEIGHTS
from adcore.registry import backbone_card

EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed date, so that the same weights make the same wheel
PLUGIN = '''"""Weights of the backbone {name}, registered for adcore."""

from adcore.cards import BackboneCard
from adcore.hookspecs import hookimpl


@hookimpl
def adcore_register_backbones() -> list[BackboneCard]:
    return [BackboneCard(**{fields!r})]
'''


def distribution_name(name: str) -> str:
    """The distribution that carries the weights called `name`: "my_net" -> "adcore-weights-my-net"."""
    return WEIGHTS + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def pack(file: str | Path, name: str, out: str | Path, new_name: str | None = None, version: str = "1.0.0") -> Path:
    """Write the weights `file` of the known backbone `name` as a wheel into the folder `out`; returns its path.

    Installed, the wheel completes the card of that name, and `resolve(name)` finds it. With `new_name` it
    registers a backbone of that name instead: own weights for a known architecture. The same input gives the same bytes.
    Raises ConfigError for a name or version that no package can have, WeightsError when the file is missing, is not what
    its name promises, or does not fit the network.
    """
    file, card = Path(file), backbone_card(name)
    if not file.is_file():
        raise WeightsError(f"weights file {file} does not exist")
    check_digest(WeightsFile(card, file, "file"))
    _check_fit(card, file)
    title = card.name if new_name is None else new_name
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", title) or len(title) > 100:
        raise ConfigError(f"a backbone cannot be called {title!r}; use letters, digits, '_', '-' and '.'")
    try:
        version = str(Version(version))
    except InvalidVersion:
        raise ConfigError(f"{version!r} is not the version of a package; give one such as 1.0.0") from None
    distribution = distribution_name(title)
    module = distribution.replace("-", "_")
    digest, stored = sha256_file(file), re.sub(r"[^A-Za-z0-9._-]", "_", file.name)
    packed = replace(
        card,
        name=title,
        aliases=card.aliases if title == card.name else (),
        filenames=(stored,),
        sha256={stored: digest},
        wheel=(distribution, f"{module}/{stored}"),
        source=f"the wheel {distribution}",
        size_mb=max(1, round(file.stat().st_size / 1e6)),
        hub=None,
    )
    info = f"{module}-{version}.dist-info"
    metadata = (
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        f"Summary: Weights of the backbone {title} for adcore\nLicense: {card.licence}\nRequires-Dist: adcore>={__version__}\n"
    )
    tags = "Wheel-Version: 1.0\nGenerator: adcore\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    texts = {
        f"{module}/__init__.py": f'"""Weights of the backbone {title}."""\n',
        f"{module}/plugin.py": PLUGIN.format(name=title, fields=asdict(packed)),
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": tags,
        f"{info}/entry_points.txt": f"[adcore]\n{distribution} = {module}.plugin\n",
    }
    wheel = Path(out) / f"{module}-{version}-py3-none-any.whl"
    weights, size = f"{module}/{stored}", file.stat().st_size
    record = [_record(path, text.encode()) for path, text in texts.items()]
    record += [f"{weights},sha256={_urlsafe(bytes.fromhex(digest))},{size}", f"{info}/RECORD,,"]
    with atomic_path(wheel) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        with open(file, "rb") as source, archive.open(_entry(weights), "w", force_zip64=True) as target:
            while block := source.read(1 << 20):
                target.write(block)
        for path, text in {**texts, f"{info}/RECORD": "\n".join(record) + "\n"}.items():
            archive.writestr(_entry(path), text)
    return wheel


def _check_fit(card: BackboneCard, file: Path) -> None:
    from adcore.backbones.build import create_backbone

    try:
        create_backbone(card.name, str(file))
    except AdcoreError as error:
        raise WeightsError(f"not packed: {error}") from None


def _entry(path: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(path, EPOCH)
    entry.external_attr = 0o100644 << 16
    return entry


def _record(path: str, content: bytes) -> str:
    return f"{path},sha256={_urlsafe(hashlib.sha256(content).digest())},{len(content)}"


def _urlsafe(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
