"""The compiled extension: what it says of itself, its threads, its build, its memory accesses."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from seg_plugins.ops._extension import (
    CUDA_FILES,
    FILES,
    ExtensionStatus,
    load_cuda_extension,
    load_extension,
    require_extension,
)

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
needs_extension = pytest.mark.skipif(
    not load_extension().loaded, reason=f"not built: {load_extension().reason}"
)

needs_setup = pytest.mark.skipif(
    not (ROOT / "setup.py").is_file(), reason="an installed package has no setup.py"
)


def test_what_is_built_loads():
    """Else every test of the compiled operators would be skipped."""
    if not any(file.exists() for file in FILES):
        pytest.skip("no extension was built")
    assert load_extension().loaded, load_extension().reason


@needs_extension
def test_the_vector_instructions_are_named():
    assert torch.ops.seg_plugins.instruction_set() in ("baseline", "avx2", "avx512")


@needs_extension
@pytest.mark.skipif(sys.platform != "linux", reason="reads the symbols with nm")
def test_only_the_stable_abi_is_used():
    """A C++ symbol of PyTorch, or one of Python, would tie the file to a version of either."""
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("no nm")
    for file in filter(Path.exists, (*FILES, *CUDA_FILES)):
        listed = subprocess.run(
            [nm, "--dynamic", "--undefined-only", str(file)],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        wanted = {line.split()[-1] for line in listed.splitlines()}
        assert "torch_library_impl" in {name.partition("@")[0] for name in wanted}
        mangled = ("3c10", "2at", "5torch")  # the namespaces c10, at and torch
        bound = {n for n in wanted if n.startswith("_Z") and any(space in n for space in mangled)}
        assert not bound | {n for n in wanted if n.startswith(("Py", "_Py"))}
        if platform.machine() == "x86_64":
            found = [tuple(map(int, v.split("."))) for v in re.findall(r"@GLIBC_([\d.]+)", listed)]
            assert max(found) <= (2, 28)  # of the oldest Linux that PyTorch runs on


@pytest.mark.parametrize(
    ("version", "words"), [(None, "is without CUDA"), ("13.0", "does not load with torch")]
)
def test_the_operators_of_a_gpu_load_beside_cuda_alone(monkeypatch, tmp_path, version, words):
    """A file that would not load is not even tried in a PyTorch without CUDA."""
    file = tmp_path / "_C_cuda.abi3.so"
    file.write_bytes(b"no library")
    monkeypatch.setattr("seg_plugins.ops._extension.load_extension", lambda: ExtensionStatus(True))
    monkeypatch.setattr("seg_plugins.ops._extension.CUDA_FILES", (file,))
    monkeypatch.setattr("torch.version.cuda", version)
    status = load_cuda_extension.__wrapped__()
    assert not status.loaded
    assert words in status.reason
    file.unlink()
    assert "built without CUDA" in load_cuda_extension.__wrapped__().reason


@needs_extension
def test_threads_really_run():
    """A parallel loop that runs serially says nothing."""
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            assert torch.ops.seg_plugins.count_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_absent_extension_says_how_to_build_it(monkeypatch):
    absent = ExtensionStatus(False, "it is not built")
    monkeypatch.setattr("seg_plugins.ops._extension.load_extension", lambda: absent)
    with pytest.raises(RuntimeError, match="backend 'cpu' needs the compiled operators, but it is"):
        require_extension("backend 'cpu'")


def run_setup(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "setup.py", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@needs_setup
def test_setup_goes_without_the_extension_when_asked():
    done = run_setup("--version", SEG_PLUGINS_NO_EXTENSION="1")
    assert done.returncode == 0, done.stderr
    assert "no compiled operators" in done.stderr
    assert "torchvision" in done.stderr


@needs_setup
def test_setup_goes_without_the_extension_where_there_is_no_compiler():
    done = run_setup("--version", CXX="no-such-compiler")
    assert done.returncode == 0, done.stderr
    assert "no C++ compiler found" in done.stderr


@needs_setup
def test_setup_without_torch_says_what_to_do(tmp_path):
    """pip's build isolation hides the installed torch from setup.py."""
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\")")
    done = run_setup("--version", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "--no-build-isolation" in done.stderr
    assert "Traceback" not in done.stderr


@needs_setup
def test_forced_cuda_without_a_toolkit_fails_loudly(tmp_path):
    program = (
        "import runpy, sys; from torch.utils import cpp_extension; cpp_extension.CUDA_HOME = None; "
        "sys.argv = ['setup.py', '--version']; runpy.run_path('setup.py', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "FORCE_CUDA": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "Set CUDA_HOME" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="uses GCC's sanitizers")
def test_malformed_boxes_under_address_and_undefined_behaviour_sanitizers(tmp_path):
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    from torch.utils import cpp_extension

    csrc = ROOT / "seg_plugins" / "ops" / "csrc"
    library = tmp_path / "sanitized.so"
    sources = [csrc / "cpu" / name for name in ("roi_align.cpp", "roi_align_kernel.cpp")]
    includes = [f"-I{path}" for path in [csrc, *cpp_extension.include_paths()]]
    # A float that does not fit an integer is undefined behaviour too, but not in the default set.
    checks = ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"]
    flags = ["-std=c++20", "-O1", "-g0", "-shared", "-fPIC", "-Wno-psabi", *checks]
    libraries = Path(torch.__file__).with_name("lib")
    link = [f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-lc10", "-ltorch_cpu", "-ltorch"]
    command = [compiler, *flags, *includes, *map(str, sources), "-o", str(library), *link]
    subprocess.run(command, check=True)
    runtimes = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("roi_align_malformed.py")), str(library)],
        env={
            **os.environ,
            "LD_PRELOAD": " ".join(runtimes),
            # Python itself leaks on exit by design.
            "ASAN_OPTIONS": "detect_leaks=0:detect_odr_violation=0",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.strip().endswith("clean")
