"""The page as text and elements; what scripts do is tested in a browser in test_browser.py."""

from __future__ import annotations

import base64
import json
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

from seg_plugins.visualization.report import Run, build_page, read_run
from seg_plugins.visualization.report.pictures import examples, side_by_side
from seg_plugins.visualization.report.plots import curves
from seg_plugins.visualization.report.run import digest_of
from seg_plugins.visualization.report.summary import alarms, tiles
from seg_plugins.visualization.report.tables import Table, confusion, differing_settings, system

import cv2
import numpy as np
import pytest
from run_folders import HOSTILE, dump, write_run

VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Elements, attributes and text; open elements must be closed in order."""

    def __init__(self, content: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(content.decode("utf-8"))
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1:] not in (["script"], ["style"]):
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def test_tiles_show_the_main_figures_with_interval_and_best(run):
    read = read_run(run)
    interval = {(read.folder, "t_val", "sem_seg/mIoU"): (22.125, 28.875)}
    found = {tile.label: tile for tile in tiles([read], interval)}
    assert list(found) == ["AP, segm", "PQ, panoptic_seg", "mIoU, sem_seg"]
    semantic = found["mIoU, sem_seg"]
    assert (semantic.value, semantic.interval, semantic.best) == (25.0, (22.125, 28.875), (40.0, 4))
    assert found["PQ, panoptic_seg"].best is None
    words = Page(build_page([read], intervals=interval)).words
    assert "mIoU, sem_seg 25.00 95%: 22.12 to 28.88 best 40.00 at iteration 4 t_val" in words


def test_alarms_name_what_a_reader_should_not_overlook(run):
    results = run / "inference" / "sem_seg_results.json"
    content = json.loads(results.read_text())
    content["results"]["sem_seg"] |= {"IoU-sky": 0.0, "IoU-car": 0, "mIoU": 38.5}
    content["images"] = {"expected": 5, "scored": 3}
    dump(results, content)
    assert alarms([read_run(run)]) == [
        "the loss is no finite number at iteration 1",
        "2 of 5 images of t_val were not scored",
        "sky, car: IoU 0 (sem_seg, t_val)",  # 1.5 below the best is no alarm
    ]
    (run / "metrics.json").write_text("")
    assert len(alarms([read_run(run)])) == 2


def test_runs_beside_each_other_show_differences_first_and_the_same_images_together(tmp_path):
    runs = [read_run(write_run(tmp_path / name, seed=i)) for i, name in enumerate(("a", "b"))]
    record = json.loads((tmp_path / "b" / "run.json").read_text())
    dump(tmp_path / "b" / "run.json", {**record, "system": "FCN"})
    runs[1] = read_run(tmp_path / "b")
    page = build_page(runs).decode()
    places = [page.index(f'<section id="{name}"') for name in ("summary", "differences", "run")]
    assert places == sorted(places)
    words = Page(page.encode()).words
    assert "Differing runs a b system UNet FCN" in words
    (example,) = side_by_side(runs)
    assert example["name"] == "road.png"  # and no folder of another machine
    captions = [caption for caption, _ in example["pictures"]]
    assert captions == ["image", "ground truth", "a: 12.5", "b: 12.5"]
    assert side_by_side(runs[:1]) == []


def test_names_of_pictures_are_those_below_the_folder_in_common(tmp_path):
    folder = write_run(tmp_path / "run")
    file = folder / "inference" / "examples" / "examples.json"
    (entry,) = json.loads(file.read_text())
    dump(file, [{**entry, "file_name": f"/data/val/{name}"} for name in ("a/1.png", "b/1.png")])
    ((_, found),) = examples(read_run(folder))
    assert [example["name"] for example in found] == ["a/1.png", "b/1.png"]


def test_the_validation_loss_stands_beside_the_training_loss(run):
    row = {"iteration": 4, "validation/total_loss": 1.25, "validation/loss_a": 0.5}
    with (run / "metrics.json").open("a") as file:
        file.write("\n" + json.dumps(row) + "\n")
    assert "total loss, of training and validation" in Page(build_page([read_run(run)])).words


def test_every_part_is_there(run):
    page = Page(build_page([read_run(run)]))
    for part in (
        *("UNet", "20261122", "To repeat it", "for one image of 64 x 96", "multiply-adds"),
        *("Semantic segmentation on t_val", "5 of 5 images scored", "mIoU", "25.00"),
        *("Confusion", "Instance segmentation on t_val", "AP of segm by class and size"),
        *("precision and recall, segm", "Panoptic segmentation", "segments by class", "total loss"),
        *("parts of the loss", "learning rate", "sem_seg scores", "Panoptic: worst images"),
        *("ground truth", "errors", "12.5", "1 predicted segments", "config.yaml"),
    ):
        assert part in page.words, part
    assert "run/metrics.json, line 8" in page.words, "the half-written row is not mentioned"
    assert str(run.parent) not in page.words, "whose machine it was does not matter"


def test_the_command_that_repeats_a_run_has_its_seed(run):
    command = "tools/train_net.py --config-file 'a<b>.yaml'"
    words = Page(build_page([read_run(run)])).words
    assert words.count(command) == 1
    assert f"{command} SEED 20261122" in words
    record = json.loads((run / "run.json").read_text())
    del record["repeat"]  # as older versions wrote it
    (run / "run.json").write_text(json.dumps(record))
    words = Page(build_page([read_run(run)])).words
    assert command in words
    assert f"{command} SEED" not in words


def test_it_loads_nothing_and_stays_small(run):
    content = build_page([read_run(run)])
    assert len(content) < 2_000_000
    page = Page(content)
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object", "base", "form"}
        address = attributes.get("src") or attributes.get("href") or ""
        assert not address or address.startswith("data:"), address
    assert not re.search(rb"https?://(?!www\.w3\.org)", content)
    policy = next(a["content"] for t, a in page.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:")


def test_names_cannot_become_elements_or_scripts(tmp_path):
    kind_run = write_run(tmp_path / "kind", classes=["a", "b", "c", "d", "e"])
    expected = [tag for tag, _ in Page(build_page([read_run(kind_run)])).tags]
    page = Page(build_page([read_run(write_run(tmp_path / "bad", classes=HOSTILE))]))
    assert [tag for tag, _ in page.tags] == expected
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]
    assert "<script>window.hacked = 1</script>" in page.words
    assert "{{ 7 * 7 }}" in page.words


def test_pictures_of_hostile_names_are_whole_svg():
    lines = {name: [(0.0, 0.1), (1.0, 0.9)] for name in HOSTILE}
    uri = curves(lines, HOSTILE[0], HOSTILE[2])
    svg = base64.b64decode(uri.removeprefix("data:image/svg+xml;base64,"))
    elements = list(ET.fromstring(svg).iter())
    assert not [e for e in elements if e.tag.endswith("script")]
    assert any("\\frac" in (e.text or "") for e in elements)


def test_runs_stand_side_by_side(tmp_path):
    folders = [write_run(tmp_path / name / "run", seed=i) for i, name in enumerate("ab")]
    runs = [read_run(folder) for folder in folders]
    page = Page(build_page(runs))
    assert "run (1) | run (2)" in page.words
    assert "mIoU 25.00 26.00" in page.words
    assert "SEED 0 1" in page.words
    assert differing_settings(runs).rows == [["SEED", "0", "1"]]


def test_runs_on_different_datasets_say_so(tmp_path):
    folders = [write_run(tmp_path / name, seed=i) for i, name in enumerate("ab")]
    file = folders[1] / "inference" / "sem_seg_results.json"
    dump(file, {**json.loads(file.read_text()), "dataset": "other_val"})
    page = Page(build_page([read_run(folder) for folder in folders]))
    assert "Semantic segmentation on t_val, other_val" in page.words
    assert "b: other_val, 5 of 5 images scored" in page.words
    assert "Instance segmentation on t_val " in page.words


def test_what_is_missing_stands_where_numbers_would(run):
    text = build_page([read_run(run)]).decode()
    assert '<td class="number">–</td>' in text
    assert "<td>–</td>" not in text
    assert Table("", ["a", "b", "c"], [["x", 1, "y"], ["z", None, None]]).is_numeric(1)
    assert not Table("", ["a", "b", "c"], [["x", 1, "y"], ["z", None, None]]).is_numeric(2)


def test_confusion_is_by_row_and_without_ignored_pixels():
    found = confusion({"classes": ["a", "b"], "confusion": [[6, 2, 9], [0, 0, 9], [9, 9, 9]]})
    assert found.cells == [[(0.75, 6), (0.25, 2)], [(0.0, 0), (0.0, 0)]]


def test_the_system_table_says_for_how_many_regions(run):
    part = {"name": "backbone", "parameters": 2 * 10**6, "multiply_adds": 10**9, "regions": None}
    boxes = {**part, "name": "roi_heads, boxes", "activation_bytes": 2**21, "regions": 1000}
    found = system(Run("a", run, system={"size": [64, 96], "rows": [part, boxes]}))
    assert found.columns[-1] == "regions, at most"
    assert found.rows == [
        ["backbone", 2.0, 1.0, None, None],
        ["roi_heads, boxes", 2.0, 1.0, 2.0, 1000],
    ]
    assert "regions" not in " ".join(system(read_run(run)).columns)


def test_many_classes_become_a_picture():
    names = [f"c{i}" for i in range(40)]
    found = confusion({"classes": names, "confusion": np.eye(41).tolist()})
    assert found.picture.startswith("data:image/png")
    assert not found.cells


def test_a_folder_with_one_file_is_enough(tmp_path):
    (tmp_path / "config.yaml").write_text("A: [unclosed")
    page = Page(build_page([read_run(tmp_path)]))
    assert "A: [unclosed" in page.words


def test_damaged_files_are_named_in_the_page(run):
    (run / "run.json").write_text("{")
    (run / "system.json").write_text("[]")
    page = Page(build_page([read_run(run)], errors=["the pictures failed: <b>"]))
    assert "Not everything could be shown" in page.words
    for part in ("the pictures failed: <b>", "run.json:", "system.json holds a list"):
        assert part in page.words


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        read_run(tmp_path)


def write_explanations(run, names):
    """The explanations of all three tasks of a run of four classes."""
    picture = np.full((20, 30, 3), 100, np.uint8)
    folder = run / "inference" / "explanations"
    folder.mkdir()
    (folder / "one.jpg").write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
    entry = {"file_name": f"/data/{names[0]}.png", "picture": "explanations/one.jpg"}
    error = {"gain": {"localisation": 12.5}, "count": {"localisation": 3}, "AP50": 61.25}
    empty = {"from": 0.0, "to": 0.5, "score": None, "right": None, "detections": 0}
    full = {"from": 0.5, "to": 1.0, "score": 0.75, "right": 0.5, "detections": 4}
    best = {"from_score": 0.625, "F1": 50.0, "precision": 40.0, "recall": None, "objects": 9}
    scores = {"ECE": 25.0, "MCE": 25.0, "ECE_by_class": {names[0]: 33.25}, "bins": [empty, full]}
    label = {**entry, "suspicion": "wrong class", "predicted": names[0], "annotated": names[1]}
    pair = {**entry, "true": names[0], "predicted": names[1], "pixels": 7, "share": 1.0}
    row = {"pixels": 90, "wrong": 45, "error": 50.0, "share": 98.5}
    quality = {"PQ": 30.0, "SQ": 60.0, "RQ": 50.0, "precision": 50.0, "recall": 51.5}
    contents = {
        "instances": {
            "tide": {"segm": error},
            "calibration": {"segm": scores, "bbox": None},
            "best_scores": {"segm": {names[0]: best}},
            "overlap": "segm",
            "confusion": {
                "classes": names[:2],
                "confidence": 0.5,
                "counts": [[3, 1, 0], [0, 4, 12], [2, 0, 0]],
            },
            "label_errors": [{**label, "score": 0.875, "iou": 0.7}],
        },
        "sem_seg": {
            "border": [{"up_to": 1, **row}, {"up_to": 2, **row}, {"up_to": None, **row}],
            "confusion_pairs": [{**pair, "share_of_class": 2.0, "pixels_there": 1234}],
        },
        "panoptic_seg": {
            "quality": {names[0]: quality},
            "not_found": {names[0]: {"merged": 4, "split": 5}},
            "merged_or_split": [{**entry, "reason": "split", "class": names[0], "pixels": 5678}],
        },
    }
    for task, content in contents.items():
        digest = digest_of(run / "inference" / f"{task}_results.json")
        dump(run / "inference" / f"{task}_explanations.json", {"results": digest, **content})


def test_explanations_are_there(run):
    write_explanations(run, ["road", "sky", "car", "tree"])
    page = Page(build_page([read_run(run)]))
    for part in (
        *("Errors by kind", "masks, AP50 61.25", "localisation 12.50 3", "calibration error 25.00"),
        *("road 33.25 0.62 50.00 40.00 – 9", "Confusion of classes", "sky 0.0 25.0 75.0"),
        *("wrong class: road 0.88, annotated sky in road.png", "up to 1 90 45 50.00 98.50"),
        *("1 to 2", "more than 2", "road as sky: 1,234 pixels in road.png", "where PQ is lost"),
        *(
            "road 30.00 50.00 60.00 50.00 51.50",
            "merged split road 4 5",
            "road split: 5,678 pixels",
        ),
    ):
        assert part in page.words, part
    assert [tag for tag, a in page.tags if "image/jpeg" in (a.get("src") or "")] == ["img"] * 3


def test_explanations_with_hostile_names_and_of_two_runs(run, tmp_path):
    other = write_run(tmp_path / "other", classes=HOSTILE[:4])
    write_explanations(run, ["road", "sky", "car", "tree"])
    write_explanations(other, HOSTILE[:4])
    content = build_page([read_run(run), read_run(other)])
    page = Page(content)
    assert not [tag for tag, attributes in page.tags if "onerror" in attributes]
    assert b"window.hacked = 1</script>" not in content
    assert "Errors by kind, run" in page.words
    assert "Errors by kind, other" in page.words
