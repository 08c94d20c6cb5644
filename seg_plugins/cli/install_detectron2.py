"""``seg-plugins install-detectron2``: into the running interpreter's environment, if not there yet.

The package index carries release 0.6 only as the source distribution ``pb1-detectron2``, without
the C++ sources. Its archive is checked against a fixed SHA-256 before anything in it runs; then
its own ``setup.py`` builds a wheel named ``detectron2``, with the extension and the outdated pins
left out. ``seg_plugins.compat`` makes the result run on a current stack.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from ..io.errors import SegPluginsError

PACKAGE, VERSION = "pb1-detectron2", "0.6"
SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
GIT_URL = "git+https://github.com/facebookresearch/detectron2.git"

# Runs inside the unpacked archive. Requirements are reduced to what the Python code imports and
# what this project does not pin anyway; versions that no longer exist side by side are dropped.
BUILD_WHEEL = """
import runpy, sys
import setuptools

DROPPED = ("black", "future", "pydot", "dataclasses")
upstream_setup = setuptools.setup

def setup(**kwargs):
    requires = [r for r in kwargs["install_requires"] if not r.startswith(DROPPED)]
    requires = ["iopath>=0.1.7" if r.startswith("iopath") else r for r in requires]
    kwargs["package_data"] = {"detectron2.model_zoo": ["configs/**/*.yaml", "configs/**/*.py"]}
    kwargs.update(name="detectron2", ext_modules=[], cmdclass={}, install_requires=requires)
    upstream_setup(**kwargs)

setuptools.setup = setup
sys.argv = ["setup.py", "-q", "bdist_wheel", "--dist-dir", sys.argv[1]]
runpy.run_path("setup.py", run_name="__main__")
"""


class InstallError(SegPluginsError, RuntimeError):
    """Detectron2 could not be installed; the message says why and what to do."""


EXPECTED = (InstallError,)


def call(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Run a command; on failure raise :class:`InstallError` with the end of its output."""
    result = subprocess.run(
        command, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if result.returncode:
        tail = "\n".join(result.stdout.strip().splitlines()[-12:])
        raise InstallError(f"'{' '.join(command[:6])} ...' failed:\n{tail}")


def pip(*arguments: str, env: dict[str, str] | None = None) -> None:
    """Run pip of this interpreter; errors as of :func:`call`."""
    call(sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments, env=env)


def version_of(package: str) -> tuple[int, ...]:
    """The first two numbers of what is installed here; empty where it is not."""
    try:
        text = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ()
    return tuple(map(int, re.findall(r"\d+", text)[:2]))


def build_environment(folder: Path) -> dict[str, str]:
    """The environment variables for fetching and building the release.

    What is missing here for that goes into `folder`, and nowhere else: a wheel builder, and a pip
    before 26.3. Later ones refuse what comes from the index and names an address in a requirement,
    as the release does for an extra.
    """
    missing = []
    if version_of("pip") >= (26, 3):
        missing.append("pip<26.3")
    # By number: importing setuptools replaces distutils, which others may have imported.
    setuptools = version_of("setuptools")
    if not setuptools:
        missing += ["setuptools", "wheel"]
    elif setuptools < (70, 1) and not version_of("wheel"):  # later ones build wheels themselves
        missing.append("wheel")
    if not missing:
        return dict(os.environ)
    pip("install", "-q", "--target", str(folder), *missing)
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def download(folder: Path, env: dict[str, str]) -> Path:
    """Fetch the source distribution from the configured package index; pip checks the hash."""
    requirements = folder / "detectron2.txt"
    requirements.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n")
    try:
        # Without build isolation: pip runs setup.py for the metadata, and that imports torch.
        pip(
            *("download", "-q", "--no-deps", "--no-build-isolation", "--no-binary", ":all:"),
            *("--require-hashes", "-r", str(requirements), "-d", str(folder)),
            env=env,
        )
    except InstallError as error:
        raise InstallError(
            f"{error}\n\nThe package index did not give {PACKAGE} {VERSION}. If this machine can "
            "reach GitHub, install upstream instead:\n"
            "  seg-plugins install-detectron2 --source git\n"
            "(in a checkout: make setup DETECTRON2=git), or\n"
            f"  {sys.executable} -m pip install --no-build-isolation '{GIT_URL}'"
        ) from None
    return next(folder.glob("pb1*detectron2*.tar.gz"))


def verify(archive: Path) -> None:
    """Compare the hash; an :class:`InstallError` where it is another."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        raise InstallError(f"{archive} has SHA-256 {digest}, expected {SHA256}: not installed.")


def build_wheel(archive: Path, folder: Path, env: dict[str, str]) -> Path:
    """A pure-Python wheel from the source distribution, below `folder`."""
    verify(archive)
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    source = folder / f"{PACKAGE}-{VERSION}"
    call(sys.executable, "-c", BUILD_WHEEL, str(folder / "dist"), cwd=source, env=env)
    return next((folder / "dist").glob("detectron2-*.whl"))


def install_release(to: Path | None) -> None:
    """Install release 0.6, or copy its wheel into the folder `to`."""
    for module, command in (("pip", "ensurepip"), ("torch", "pip install torch torchvision")):
        if importlib.util.find_spec(module) is None:
            raise InstallError(f"{module} must be installed first: {sys.executable} -m {command}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        env = build_environment(folder / "tools")
        wheel = build_wheel(download(folder, env), folder, env)
        if to is None:
            pip("install", "-q", str(wheel))
        else:
            to.mkdir(parents=True, exist_ok=True)
            shutil.copy(wheel, to)


def install_git() -> None:
    """Install upstream's main branch, compiled."""
    try:
        pip("install", "--no-build-isolation", GIT_URL)
    except InstallError as error:
        raise InstallError(
            f"{error}\n\nInstalling upstream needs git, a C++ compiler and GitHub. "
            "Without them, use the release: seg-plugins install-detectron2"
        ) from None


def run(args: argparse.Namespace) -> None:
    """Install it, or put its wheel into ``--wheel``; one that is installed is left as it is.

    Raises:
        InstallError: it could not be installed.
    """
    if args.wheel is None and importlib.util.find_spec("detectron2") is not None:
        print("detectron2 is installed already; left as it is")
        return
    if args.source == "git":
        install_git()
    else:
        install_release(args.wheel)
    print(f"detectron2: {args.wheel or 'installed'}")
