"""Videos in, videos out."""

from __future__ import annotations

from seg_plugins.data import DatasetError
from seg_plugins.prediction.outputs import OutputOptions
from seg_plugins.prediction.video import Smoothing, VideoWriter, predict_video

import cv2
import numpy as np
import pytest
import torch
from stubs import PANOPTIC, SEMANTIC, RedChannel, predictor, stripes


def write_video(path, frames, rate=10.0):
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, (width, height))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[:, :, ::-1]))
    writer.release()
    return path


def read_video(path):
    capture = cv2.VideoCapture(str(path))
    rate, frames = capture.get(cv2.CAP_PROP_FPS), []
    while True:
        there, frame = capture.read()
        if not there:
            return rate, frames
        frames.append(frame[:, :, ::-1])


def test_each_frame_becomes_one(tmp_path):
    path = write_video(tmp_path / "a.mp4", [stripes(64, 80)] * 7)
    found = predict_video(
        predictor(RedChannel()), path, tmp_path / "out", "a",
        OutputOptions(("overlay", "color", "blur"), classes=("person",)),
    )  # fmt: skip
    assert (found["frames"], found["height"], found["width"]) == (7, 64, 80)
    assert sum(r["area"] for r in found["regions"]) == 7 * 64 * 80
    rate, colors = read_video(tmp_path / "out/color/a.mp4")
    assert rate == pytest.approx(10)
    assert len(colors) == 7
    assert np.abs(colors[3][50, 40].astype(int) - (0, 200, 0)).max() < 25  # grass, in RGB
    assert np.abs(colors[3][5, 40].astype(int) - (0, 0, 200)).max() < 25
    assert read_video(tmp_path / "out/overlay/a.mp4")[1][0].shape[0] > 64  # a legend
    assert read_video(tmp_path / "out/blur/a.mp4")[1][0].shape == (64, 80, 3)


def test_odd_sizes_are_made_even(tmp_path):
    with VideoWriter.open(tmp_path / "a.mp4", 5) as writer:
        writer.write(stripes(63, 81))
    assert read_video(tmp_path / "a.mp4")[1][0].shape == (64, 82, 3)


def test_smoothing_is_a_moving_average_of_probabilities():
    smooth = Smoothing(0.75)
    one, two = torch.tensor([[[4.0]], [[0.0]]]), torch.tensor([[[0.0]], [[4.0]]])
    first = torch.softmax(one, 0)
    assert torch.equal(smooth(one), first)
    torch.testing.assert_close(smooth(two), 0.75 * first + 0.25 * torch.softmax(two, 0))
    binary = Smoothing(0.5)
    chance = binary(torch.tensor([[[2.0]]])).item() + 0.5
    assert chance == pytest.approx(1 / (1 + np.exp(-2)))


def test_smoothing_drops_a_flicker(tmp_path):
    """One frame in which everything is grass does not change what nine others say."""
    grass = np.full((64, 80, 3), 120, np.uint8)
    frames = [stripes(64, 80)] * 5 + [grass] + [stripes(64, 80)] * 4
    path = write_video(tmp_path / "a.mp4", frames)
    options = OutputOptions(("color",))
    predict = predictor(RedChannel())
    plain = predict_video(predict, path, tmp_path / "plain", "a", options)
    smooth = predict_video(predict, path, tmp_path / "smooth", "a", options, 0.8)
    # Sky is class 0: 10 frames of it with smoothing, 9 without.
    assert smooth["regions"][0]["area"] / plain["regions"][0]["area"] == pytest.approx(
        10 / 9, abs=0.02
    )


def test_what_is_no_video_is_an_error(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video at all")
    with pytest.raises(DatasetError, match="not a readable video"):
        predict_video(predictor(RedChannel()), path, tmp_path, "a", OutputOptions())
    with pytest.raises(ValueError, match=r"videos give overlay, color, blur, not mask\. .*ffmpeg"):
        predict_video(predictor(RedChannel()), path, tmp_path, "a", OutputOptions(("mask",)))
    with pytest.raises(ValueError, match="smoothing needs a semantic system"):
        predict_video(predictor(RedChannel(), PANOPTIC), path, tmp_path, "a", OutputOptions(), 0.5)
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        Smoothing(1.0)
    assert not (tmp_path / "overlay").exists()
    assert SEMANTIC.things == ()


@pytest.mark.parametrize("damage", ["cut", "hole"])
def test_a_damaged_video_is_told_with_its_frames(tmp_path, damage):
    frames = [np.random.default_rng(i).integers(60, 180, (64, 64, 3), np.uint8) for i in range(20)]
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
    for frame in frames:
        writer.write(frame)
    writer.release()
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    if damage == "cut":
        del content[middle:]
    else:
        content[middle : middle + 6000] = bytes(6000)
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.avi: (\d+) of 20 frames can be read") as caught:
        predict_video(
            predictor(RedChannel()), path, tmp_path / "out", "a", OutputOptions(("color",))
        )
    count = int(str(caught.value).split(": ")[1].split(" of ")[0])
    assert 5 < count < 20
    assert len(read_video(tmp_path / "out/color/a.mp4")[1]) == count


def test_frames_that_were_not_written_are_an_error(tmp_path):
    def lose_one():
        with VideoWriter.open(tmp_path / "a.mp4", 10.0) as writer:
            for _ in range(4):
                writer.write(stripes(64, 80))
            writer.frames += 1

    with pytest.raises(OSError, match="4 of 5 frames were written"):
        lose_one()
    assert not list(tmp_path.iterdir())
