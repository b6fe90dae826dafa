"""A bundle that somebody altered: every oddity of its manifest and its files is one line, and no link is followed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
from adcore.bundle import make_bundle
from adcore.bundle_manifest import fingerprints, verify_bundle
from adcore.errors import ConfigError

HASH = hashlib.sha256(b"x").hexdigest()
GOOD = {"sha256": HASH, "bytes": 1}


@pytest.fixture
def bundle(tmp_path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "wheels").mkdir(parents=True)
    (folder / "wheels" / "a.whl").write_text("x")
    write(folder, {"format": 1, "files": fingerprints(folder)})
    assert verify_bundle(folder) == []
    return folder


def write(folder: Path, manifest: object) -> None:
    (folder / "manifest.json").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))


@pytest.mark.parametrize(
    "manifest",
    [
        "", "[]", "3", "null", '"text"', "{", "{}", "[" * 100_000, '{"format": 1}', '{"format": "1", "files": {}}',
        '{"format": null, "files": {}}', '{"format": 1.5, "files": {}}', '{"format": 0, "files": {}}',
        '{"format": true, "files": {}}', '{"format": 1, "files": []}', '{"format": 1, "files": {"a": null}}',
        '{"format": 1, "files": {"a": {"sha256": 3, "bytes": 1}}}',
        '{"format": 1, "files": {"a": {"sha256": "AB", "bytes": 1}}}',
        f'{{"format": 1, "files": {{"a": {{"sha256": "{HASH}", "bytes": -1}}}}}}', '{"format": ' + "9" * 5_000 + "}",
        f'{{"format": 1, "files": {{"wheels/a.whl": {json.dumps(GOOD)}, "wheels/a.whl": {json.dumps(GOOD)}}}}}',
        '{"format": 1, "files": {"a\\ud800": 1}}', " " * 2**26 + "{}",
    ],
    ids=lambda text: text[:40],
)  # fmt: skip
def test_a_manifest_of_another_form_is_one_line(bundle, run_cli, manifest) -> None:
    write(bundle, manifest)
    code, _, err = run_cli("bundle", "verify", bundle)
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert "manifest.json is damaged" in err
    assert len(err) < 1000


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../outside", "wheels/../../outside", "C:/windows", "c:x", "\\\\host\\x", "a\\b", "./wheels/a.whl",
     "wheels//a.whl", "", ".", "wheels/", "a\0b", "manifest.json"],
)  # fmt: skip
def test_a_name_that_points_outside_is_never_opened(bundle, run_cli, name) -> None:
    (bundle.parent / "outside").write_text("x")
    write(bundle, {"format": 1, "files": {**fingerprints(bundle / "wheels" / ".."), name: GOOD}})
    files = json.loads((bundle / "manifest.json").read_text())["files"]
    files.pop("manifest.json") if name != "manifest.json" else None
    write(bundle, {"format": 1, "files": files})
    code, out, err = run_cli("bundle", "verify", bundle)
    assert (code, err) == (1, "")
    (line,) = out.splitlines()
    assert line.startswith("not a name within the bundle: ")
    assert "\0" not in line


def test_a_listed_folder_and_a_name_with_a_line_break_are_one_line_each(bundle) -> None:
    files = {**fingerprints(bundle), "wheels": GOOD, "gone\nmissing: b": GOOD}
    files.pop("manifest.json")
    write(bundle, {"format": 1, "files": files})
    problems = verify_bundle(bundle)
    assert len(problems) == 2
    assert "a folder: wheels" in problems
    assert all(len(problem.splitlines()) == 1 for problem in problems)


@pytest.mark.skipif(os.name == "nt", reason="links need a right of their own on Windows")
def test_links_are_reported_whatever_they_point_to(bundle) -> None:
    outside = bundle.parent / "outside"
    outside.mkdir()
    (outside / "x").write_text("x")
    (bundle / "more").symlink_to(outside)
    (bundle / "wheels" / "a.whl").unlink()
    (bundle / "wheels" / "a.whl").symlink_to(outside / "x")  # of the content that is listed
    (bundle / "wheels" / "broken").symlink_to("nowhere")
    assert verify_bundle(bundle) == ["a link: more", "a link: wheels/a.whl", "a link: wheels/broken"]
    (bundle / "manifest.json").rename(outside / "manifest.json")
    (bundle / "manifest.json").symlink_to(outside / "manifest.json")
    with pytest.raises(ConfigError, match="manifest.json is a link"):
        verify_bundle(bundle)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_is_reported_and_not_read(bundle) -> None:
    (bundle / "wheels" / "a.whl").unlink()
    os.mkfifo(bundle / "wheels" / "a.whl")
    assert verify_bundle(bundle) == ["not a file: wheels/a.whl"]


@pytest.mark.skipif(os.name == "nt" or os.fsencode("é") != b"\xc3\xa9", reason="names are not bytes here")
def test_a_file_name_that_is_no_text_is_reported(bundle, run_cli) -> None:
    (bundle / os.fsdecode(b"a\xff")).write_text("x")
    code, out, _ = run_cli("bundle", "verify", bundle)
    assert (code, out) == (1, "not listed: a\\xff\n")


def test_data_that_cannot_be_copied_or_has_one_name_twice_is_one_line(tmp_path) -> None:
    pytest.importorskip("adm_memory", reason="pip install adm-memory")
    for name in ("a/parts", "b/parts"):
        (tmp_path / name).mkdir(parents=True)

    def bundle_of(*data: Path) -> None:
        make_bundle(["padim-resnet18"], tmp_path / "out", weights=False, data=data, collect=lambda order, wheels: None)

    with pytest.raises(ConfigError, match="parts have one name"):
        bundle_of(tmp_path / "a" / "parts", tmp_path / "b" / "parts")
    (tmp_path / "a" / "parts" / "gone.png").symlink_to("nowhere")
    with pytest.raises(ConfigError, match="parts cannot be copied: .*No such file") as caught:
        bundle_of(tmp_path / "a" / "parts")
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()
