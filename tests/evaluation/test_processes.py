"""The same digits from one, two and three processes, and errors that reach all of them."""

from __future__ import annotations

import json
import multiprocessing
import socket
import traceback
from datetime import timedelta

import seg_plugins  # noqa: F401 - for the spawned processes
from seg_plugins.evaluation import (
    EvaluationError,
    InstanceEvaluator,
    PanopticEvaluator,
    SemanticEvaluator,
)
from seg_plugins.evaluation.boundary import BoundaryMeasures
from seg_plugins.io.panoptic import write_segment_ids

import numpy as np
import pytest
import torch
from coco_samples import as_instances, make_coco, write_coco
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from PIL import Image

IMAGES = 5


def make_everything(folder):
    """Files of five images with semantic, instance and panoptic truth, registered as "all"."""
    rng = np.random.default_rng(0)
    content, _ = make_coco(0, images=IMAGES, size=40)
    records, annotations = [], []
    for i, image in enumerate(content["images"]):
        labels = rng.integers(0, 3, (image["height"], image["width"])).astype(np.uint8)
        path = folder / f"{image['id']}.png"
        if not path.exists():
            Image.fromarray(labels).save(path)
            write_segment_ids(folder / "panoptic" / path.name, labels.astype(int) + 1)
        values, counts = np.unique(labels + 1, return_counts=True)
        segments = [
            {"id": v, "category_id": 10 * v, "iscrowd": 0, "area": n}
            for v, n in zip(values.tolist(), counts.tolist(), strict=True)
        ]
        annotations.append(
            {"image_id": image["id"], "file_name": path.name, "segments_info": segments}
        )
        record = {"file_name": str(i), "image_id": image["id"], "sem_seg_file_name": str(path)}
        records.append(record)
    panoptic = folder / "panoptic.json"
    if not panoptic.exists():
        categories = [{"id": 10 * v, "name": f"c{v}", "isthing": v % 2} for v in (1, 2, 3)]
        panoptic.write_text(json.dumps({"categories": categories, "annotations": annotations}))
        write_coco(content, folder / "instances.json")
    DatasetCatalog.register("all", lambda: records)
    MetadataCatalog.get("all").set(
        stuff_classes=["a", "b", "c"],
        ignore_label=255,
        json_file=str(folder / "instances.json"),
        thing_dataset_id_to_contiguous_id={3: 0, 7: 1, 90: 2},
        panoptic_json=str(panoptic),
        panoptic_root=str(folder / "panoptic"),
    )
    return content, records


def predict(content, record):
    """What a model would say of one image: a function of the image alone."""
    rng = np.random.default_rng(record["image_id"])
    image = next(x for x in content["images"] if x["id"] == record["image_id"])
    size = image["height"], image["width"]
    _, predictions = make_coco(0, images=IMAGES, size=40)
    ids = rng.integers(1, 4, size)
    segments = [{"id": int(v), "category_id": 10 * int(v)} for v in np.unique(ids)]
    return {
        "sem_seg": torch.from_numpy(rng.random((3, *size), np.float32)),
        "instances": as_instances(predictions[record["image_id"]], size),
        "panoptic_seg": (torch.from_numpy(ids), segments),
    }


def evaluate(folder, output_dir, indices=None):
    """Score this process's share; `indices` overrides the sampler's."""
    content, records = make_everything(folder)
    try:
        evaluators = [
            SemanticEvaluator(
                "all", output_dir, boundary=BoundaryMeasures(3), save_predictions=True
            ),
            InstanceEvaluator("all", output_dir, boundary=True, save_predictions=True),
            PanopticEvaluator("all", output_dir, save_predictions=True),
        ]
        for index in InferenceSampler(IMAGES) if indices is None else indices:
            output = predict(content, records[index])
            for evaluator in evaluators:
                evaluator.process([records[index]], [output])
        found = [evaluator.evaluate() for evaluator in evaluators]
    finally:
        forget_everything()
    return found


def forget_everything():
    DatasetCatalog.remove("all")
    MetadataCatalog.remove("all")


def worker(rank, world_size, port, folder, output_dir, indices, answers):
    try:
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"tcp://127.0.0.1:{port}",
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=60),
        )
        comm._LOCAL_PROCESS_GROUP = torch.distributed.new_group(list(range(world_size)))
        torch.set_num_threads(1)
        own = None if indices is None else indices[rank]
        answers.put((rank, "", evaluate(folder, output_dir, own)))
    except EvaluationError as error:
        answers.put((rank, str(error), None))
    except Exception:  # noqa: BLE001 - the parent shows it
        answers.put((rank, traceback.format_exc(), None))


def in_processes(world_size, folder, output_dir, indices=None):
    # The files are written here: a process would read what another has half written.
    make_everything(folder)
    forget_everything()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # A server that has imported everything once and forks: no thread of PyTorch's runs in it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["seg_plugins", "coco_samples"])
    answers = context.Queue()
    processes = [
        context.Process(
            target=worker, args=(rank, world_size, port, folder, output_dir, indices, answers)
        )
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    found = sorted(answers.get(timeout=120) for _ in processes)
    for process in processes:
        process.join()
    return found


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_number_of_processes_changes_no_digit(world_size, tmp_path):
    expected = evaluate(tmp_path, tmp_path / "one")
    (_, message, found), *others = in_processes(world_size, tmp_path, tmp_path / "many")
    assert message == ""
    np.testing.assert_equal(found, expected)
    assert all(results == [None, None, None] for _, _, results in others)
    names = sorted(p.name for p in (tmp_path / "one").iterdir())
    assert names == sorted(p.name for p in (tmp_path / "many").iterdir())
    for name in names:
        if name.endswith((".json", ".jsonl", ".npz")):
            one, many = ((tmp_path / run / name).read_bytes() for run in ("one", "many"))
            assert one == many, name


def test_an_image_in_two_processes_or_in_none_is_named_in_all(tmp_path):
    answers = in_processes(2, tmp_path, tmp_path / "out", [[0, 1, 2], [2, 3]])
    assert all("2: predicted in 2 processes" in message for _, message, _ in answers)
    answers = in_processes(2, tmp_path, tmp_path / "out", [[0, 1, 2, 3], []])
    assert all("1 of the 5 images" in message for _, message, _ in answers)
