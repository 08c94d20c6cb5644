"""What a wheel wants of PyTorch, looked up in the libraries of a version of it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILER = shutil.which("cc")
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or COMPILER is None or shutil.which("nm") is None,
    reason="needs a C compiler and nm on Linux",
)


@pytest.fixture(scope="module")
def check_wheel():
    spec = importlib.util.spec_from_file_location("check_wheel", ROOT / "tools/check_wheel.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def wheel(path: Path, library: str, code: str) -> Path:
    """A wheel that holds one library, compiled from C."""
    built = path.with_suffix(".so")
    command = [COMPILER, "-shared", "-fPIC", "-x", "c", "-", "-o", str(built)]
    subprocess.run(command, input=code, text=True, check=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(built, library)
    return path


@pytest.mark.parametrize(
    ("defines", "found", "line"),
    [
        ("void torch_a(void) {} void aoti_torch_b(void) {}", True, "2 of 2 symbols"),
        ("void torch_a(void) {}", False, "1 of 2 symbols aoti_torch_b"),
    ],
)
def test_a_symbol_that_a_version_lacks_is_named(
    defines, found, line, check_wheel, tmp_path, monkeypatch, capsys
):
    # `puts` is of the C library, which no version of PyTorch has to define.
    wants = "void torch_a(void); void aoti_torch_b(void); int puts(const char*);"
    wants += 'void f(void) { torch_a(); aoti_torch_b(); puts("x"); }'
    ours = wheel(tmp_path / "ours.whl", "seg_plugins/_C.abi3.so", wants)
    run = check_wheel.run

    def downloaded(command, folder):
        if "download" not in command:
            return run(command, folder)
        assert command[-1] == "torch===2.12.1"
        wheel(folder / "torch-2.12.1-x.whl", "torch/lib/libtorch_cpu.so", defines)
        return None

    monkeypatch.setattr(check_wheel, "run", downloaded)
    assert check_wheel.has_symbols(ours, "2.12.1") is found
    assert capsys.readouterr().out == f"torch-2.12.1-x.whl: {line}\n"


def test_a_wheel_without_compiled_operators_is_refused(check_wheel, tmp_path, monkeypatch):
    ours = wheel(tmp_path / "ours.whl", "seg_plugins/_C.abi3.so", "void f(void) {}")

    def downloaded(command, folder, run=check_wheel.run):
        if "download" not in command:
            return run(command, folder)
        return wheel(folder / "torch-2.12.1-x.whl", "torch/lib/libc10.so", "void torch_a(void) {}")

    monkeypatch.setattr(check_wheel, "run", downloaded)
    with pytest.raises(SystemExit, match=r"ours\.whl holds no library that uses PyTorch"):
        check_wheel.has_symbols(ours, "2.12.1")


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("aoti_torch_get_dim", True),
        ("torch_parallel_for", True),
        ("_ZN3c1010TensorImplD1Ev", True),
        ("_ZN2at6Tensor3addEv", True),
        ("_ZNSt6vectorIiED1Ev", False),
        ("cudaGetLastError", False),
    ],
)
def test_which_symbols_are_of_pytorch(symbol, expected, check_wheel):
    assert check_wheel.is_of_pytorch(symbol) is expected
