"""Each repair of Detectron2: the thing is removed in a fresh process, and Detectron2 works."""

from __future__ import annotations

import importlib
import json
import pickle
import random
import re
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

from seg_plugins import compat
from seg_plugins.ops.run_length import RunLengthMasks

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetFromList, MapDataset, MetadataCatalog
from detectron2.engine import hooks
from detectron2.evaluation import COCOEvaluator
from detectron2.layers import deform_conv
from detectron2.solver.lr_scheduler import LRMultiplier
from detectron2.structures import Boxes, Instances
from fvcore.common.param_scheduler import MultiStepParamScheduler

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
    if "except ImportError" in Path(deform_conv.__file__).read_text():
        pytest.skip("upstream main can do without its extension")
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


@pytest.mark.parametrize("run_lengths", [False, True])
def test_coco_evaluation_scores_boxes_and_masks(tmp_path, run_lengths):
    """Overlap 0.62 is a match at three of COCO's ten thresholds."""
    boxes = {1: [0, 0, 10, 10], 2: [20, 20, 10, 10]}
    truth = {
        "info": {},
        "images": [{"id": i, "height": 40, "width": 40, "file_name": f"{i}.jpg"} for i in boxes],
        "categories": [{"id": 7, "name": "a"}],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 7, "iscrowd": 0, "area": 100, "bbox": box}
            | {"segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}
            for i, box in boxes.items()
            for x, y, w, h in [box]
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    metadata = MetadataCatalog.get("compat_coco")
    metadata.set(
        json_file=str(tmp_path / "truth.json"),
        thing_classes=["a"],
        thing_dataset_id_to_contiguous_id={7: 0},
    )
    DatasetCatalog.register("compat_coco", lambda: [])
    try:
        evaluator = COCOEvaluator("compat_coco", ("bbox", "segm"), False, str(tmp_path))
        evaluator.reset()
        for image, (x, y, w, h) in boxes.items():
            wide = 6.2 if image == 2 else w
            found = Instances((40, 40), pred_boxes=Boxes(torch.tensor([[x, y, x + wide, y + h]])))
            found.scores, found.pred_classes = torch.tensor([0.9]), torch.tensor([0])
            found.pred_masks = torch.zeros(1, 40, 40, dtype=torch.bool)
            found.pred_masks[0, y : y + h, x : x + w] = True
            if run_lengths:
                found.pred_masks = RunLengthMasks.from_bitmasks(found.pred_masks)
            evaluator.process([{"image_id": image}], [{"instances": found}])
        results = evaluator.evaluate()
    finally:
        DatasetCatalog.remove("compat_coco")
        MetadataCatalog.remove("compat_coco")
    # Precision 1 up to recall 0.5 where one of two is found: 51 of 101 recalls.
    assert results["segm"]["AP"] == pytest.approx(100)
    assert results["bbox"]["AP"] == pytest.approx((3 * 100 + 7 * 100 * 51 / 101) / 10, abs=0.01)


def test_the_faster_coco_evaluation_of_a_built_extension_is_kept(tmp_path):
    check(
        """
        import detectron2
        detectron2.__path__.append(sys.path[0])
        from detectron2.evaluation import coco_evaluation, fast_eval_api
        assert coco_evaluation.COCOeval_opt is fast_eval_api.COCOeval_opt
        assert fast_eval_api.COCOeval_opt is not fast_eval_api.COCOeval
        """,
        path=_write(tmp_path / "_C.py", ""),
    )


def test_a_mapper_may_skip_records():
    dataset = MapDataset(DatasetFromList([1, 2, 3, 4]), lambda x: None if x in (2, 3) else 10 * x)
    copy = pickle.loads(pickle.dumps(dataset))  # as to a worker that is spawned
    for each in (dataset, copy):
        assert (each[0], each[3]) == (10, 40)
        assert {each[1] for _ in range(20)} == {10, 40}


def test_sampling_of_lists_is_as_before():
    ours, theirs = compat.SetSamplingRandom(5), random.Random(5)
    assert ours.sample(range(100), 7) == theirs.sample(range(100), 7)
    assert ours.sample(["a", "b"], 2, counts=[2, 3]) == theirs.sample(["a", "b"], 2, counts=[2, 3])


def test_modules_imported_before_are_repaired():
    check(
        """
        dataset = MapDataset([1, 2, 3], lambda x: None if x == 2 else x)
        assert dataset[1] in (1, 3)
        """,
        before="import sys, types\nfrom PIL import Image\nImage.LINEAR = 2\n"
        "sys.modules['detectron2._C'] = types.ModuleType('detectron2._C')\n"
        "import detectron2\ndetectron2._C = sys.modules['detectron2._C']\n"
        "from detectron2.data.common import MapDataset\n",
    )


def _rates(make_scheduler, steps, state=None):
    """Learning rates before each step under the hook, and the hook's state after them."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    hook = hooks.LRScheduler(optimizer, make_scheduler(optimizer))
    if state is not None:
        hook.load_state_dict(state["hook"])
        optimizer.load_state_dict(state["optimizer"])
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        hook.scheduler.step()
    return rates, {"hook": hook.state_dict(), "optimizer": optimizer.state_dict()}


@pytest.mark.parametrize(
    "make_scheduler",
    [
        lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5),
        lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 6], 0.5),
        lambda optimizer: LRMultiplier(optimizer, MultiStepParamScheduler([1, 0.5, 0.25], 9), 9),
    ],
    ids=["StepLR", "MultiStepLR", "LRMultiplier"],
)
def test_a_schedule_goes_on_where_it_was(make_scheduler, tmp_path):
    first, state = _rates(make_scheduler, 4)
    torch.save(state, tmp_path / "state.pth")
    rest, _ = _rates(make_scheduler, 4, torch.load(tmp_path / "state.pth", weights_only=True))
    assert first + rest == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]


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


@pytest.mark.parametrize(("old", "new"), compat.MOVED.items())
def test_a_module_that_has_moved_is_found_by_its_old_name(old, new, monkeypatch):
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(FutureWarning, match=f"^{old} is {new} now$"):
        found = importlib.import_module(old)
    assert found is importlib.import_module(new)
    assert found.__spec__.name == new


def test_starting_loads_no_compiler_and_torchvision_asks_it_all_the_same():
    code = (
        "import sys, seg_plugins.engine, seg_plugins.prediction\n"
        "print(sorted({'torch._dynamo', 'timm', 'matplotlib', 'triton'} & set(sys.modules)))\n"
        "from torchvision.ops.roi_align import is_compile_supported as asked\n"
        "answer = asked('cpu')\n"
        "from torch._dynamo.utils import is_compile_supported as compiler\n"
        "assert asked is not compiler\n"
        "assert answer is compiler('cpu')\n"
    )
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"


def test_timm_loads_no_compiler_and_keeps_its_functions_out_of_compiled_ones():
    code = (
        "import sys, seg_plugins, timm, torch\n"
        "print('torch._dynamo' in sys.modules)\n"
        "from timm.layers import disable_compiler\n"
        "seen = []\n"
        "@disable_compiler\n"
        "def outside(x):\n"
        "    seen.append(torch.compiler.is_compiling())\n"
        "    return x + 1\n"
        "compiled = torch.compile(lambda x: outside(x * 2) * 3, backend='eager')\n"
        "assert compiled(torch.ones(2)).tolist() == [9, 9]\n"
        "assert seen == [False]\n"
    )
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "False"
