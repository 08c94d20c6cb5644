"""Each repair of Detectron2: the thing is removed in a fresh process, and Detectron2 works."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

from seg_plugins import compat

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent

# Loads compat alone, as `import seg_plugins` does first; nothing else of the package runs.
LOAD_COMPAT = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("compat", "seg_plugins/compat.py")
compat = sys.modules["compat"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compat)
compat.install()
"""


def run_python(code: str, *, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    before = f"import sys; sys.path.insert(0, {str(path)!r})\n" if path else ""
    return subprocess.run(
        [sys.executable, "-c", before + textwrap.dedent(code)],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=120,
    )


def check(code: str, *, before: str = "", path: Path | None = None) -> None:
    result = run_python(before + LOAD_COMPAT + textwrap.dedent(code), path=path)
    assert result.returncode == 0, result.stderr


def test_numpy_aliases_serve_detectron2_and_leave_numpy_alone():
    check(
        """
        import numpy as np
        from detectron2.structures.masks import polygons_to_bitmask
        square = polygons_to_bitmask([np.array([1.0, 1, 3, 1, 3, 3, 1, 3])], 5, 5)
        assert square.sum() == 4 and square.dtype == bool
        assert not hasattr(np, "int") and not hasattr(np, "float"), "NumPy itself was changed"
        """,
        before="import numpy\nfor n in ('bool', 'int', 'float', 'object', 'str'):\n"
        "    vars(numpy).pop(n, None)\n",
    )


def test_numpy_with_all_aliases_is_left_alone(monkeypatch):
    for name, alias in compat.NUMPY_ALIASES.items():
        monkeypatch.setitem(vars(np), name, alias)
    assert compat.numpy_with_aliases() is None


def test_pillow_linear_is_there_only_while_detectron2_loads():
    check(
        """
        from PIL import Image
        from detectron2.data.transforms import ExtentTransform
        assert ExtentTransform((0, 0, 1, 1), (2, 2)).interp == Image.Resampling.BILINEAR
        assert not hasattr(Image, "LINEAR")
        """,
        # Pillow 9 gives it through a module __getattr__, with a warning.
        before="from PIL import Image\nfor n in ('LINEAR', '__getattr__'):\n"
        "    vars(Image).pop(n, None)\n",
    )


HIDE_PKG_RESOURCES = """
import importlib.machinery, sys
class Hide:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "pkg_resources":
            raise ModuleNotFoundError(name)
real = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name == "pkg_resources" else real(name, path, target)
importlib.machinery.PathFinder.find_spec = find_spec
"""


def test_model_zoo_finds_its_92_files_without_pkg_resources():
    check(
        """
        from pathlib import Path
        from detectron2 import model_zoo
        name = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
        file = Path(model_zoo.get_config_file(name))
        assert file.is_file()
        assert len(list(file.parent.parent.rglob("*.yaml"))) >= 92
        assert "pkg_resources" not in sys.modules
        """,
        before=HIDE_PKG_RESOURCES,
    )


def test_a_present_pkg_resources_is_used(tmp_path):
    (tmp_path / "pkg_resources.py").write_text(
        "def resource_filename(package, resource): return 'from the real one'\n"
        "def resource_exists(package, resource): return True\n"
    )
    check(
        """
        from detectron2.model_zoo import model_zoo
        assert model_zoo.pkg_resources.__file__.endswith("pkg_resources.py")
        """,
        path=tmp_path,
    )


def _has_extension() -> bool:
    result = run_python(
        "from importlib.machinery import PathFinder as P; import detectron2 as d\n"
        "raise SystemExit(P.find_spec('detectron2._C', d.__path__) is None)"
    )
    return result.returncode == 0


needs_no_extension = pytest.mark.skipif(
    _has_extension(), reason="this Detectron2 has its C++ extension"
)


@needs_no_extension
def test_detectron2_does_not_import_without_compat():
    assert "_C" in run_python("import detectron2.modeling").stderr


@needs_no_extension
def test_missing_extension_answers_versions_and_names_the_fix():
    check(
        """
        from detectron2 import _C
        from detectron2.utils.collect_env import collect_env_info
        assert "not built" in collect_env_info() and _C.has_cuda() is False
        from detectron2.layers import deform_conv
        assert deform_conv._C is _C  # what the operator calls on a GPU
        try:
            _C.deform_conv_forward(None)
        except compat.MissingExtensionError as error:
            assert "DETECTRON2=git" in str(error) and "deform_conv_forward" in str(error)
        else:
            raise SystemExit("no error")
        """
    )


def test_a_built_extension_is_used(tmp_path):
    """The finder steps aside where the path finder finds detectron2._C."""
    check(
        """
        import detectron2
        detectron2.__path__.append(sys.path[0])
        from detectron2 import _C
        assert _C.deform_conv_forward() == "real"
        """,
        path=_write(tmp_path / "_C.py", "def deform_conv_forward(): return 'real'\n"),
    )


def _write(file: Path, text: str) -> Path:
    file.write_text(text)
    return file.parent


def test_known_warnings_are_silenced_by_exact_message_only():
    texts = (
        "torch.meshgrid: in an upcoming release, it will be required to pass the indexing argument."
        " (Triggered internally at x.)",
        "`torch.jit.script` is deprecated. Please switch to `torch.compile` or `torch.export`.",
    )
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        compat.install()
        for text, category in zip(texts, (UserWarning, FutureWarning), strict=True):
            warnings.warn(text, category, stacklevel=1)
            warnings.warn("another " + text, category, stacklevel=1)
    assert [str(w.message)[:8] for w in seen] == ["another ", "another "]
    assert all(re.compile(message) for message, _ in compat.KNOWN_WARNINGS)


def test_install_twice_adds_one_finder():
    compat.install()
    compat.install()
    assert sum(type(f).__name__ == "_Finder" for f in sys.meta_path) == 1


def test_other_packages_load_as_before():
    assert type(torch.__loader__).__name__ == "SourceFileLoader"
