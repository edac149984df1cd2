"""The talking head that comes with the package, on speakers and sentences that it never met."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from ctjax.infer import demo
from ctjax.infer.talking_head import TalkingHead
from ctjax.media.container import probe

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import demo_figures  # noqa: E402

WORLD = 31  # another seed than the table's
MOST_BYTES = 20e6


@pytest.fixture(scope="module")
def head():
    return TalkingHead.from_bundle(demo.bundle())


@pytest.fixture(scope="module")
def clips(head):
    return demo_figures.held_out(head, 2, WORLD)


def neighbours(clips):
    return zip(clips, clips[1:] + clips[:1], strict=True)


@pytest.fixture(scope="module")
def mouth(head, clips):
    """Each figure of `demo_figures.mouth`, mean over the clips; of every sixth frame, as rendering takes the time."""
    measure = demo_figures.Aperture()
    found = [demo_figures.mouth(head, measure, clip, other, every=6) for clip, other in neighbours(clips)]
    return {name: np.mean([clip[name] for clip in found]) for name in found[0]}


def by_alpha(mouth):
    return [mouth[f"aperture_alpha_{alpha:g}"] for alpha in demo_figures.ALPHAS]


def test_the_mouth_follows_its_own_sound_and_alpha(mouth):
    assert mouth["correlation"] > 0.8
    assert mouth["correlation_control"] < 0.3
    assert np.all(np.diff(by_alpha(mouth)) > 0), by_alpha(mouth)


def test_alpha_0_closes_the_mouth(mouth):
    assert mouth["aperture_alpha_0"] < 0.1 * mouth["aperture_truth"]


def test_silence_closes_a_mouth_that_was_filmed_open(mouth):
    assert mouth["aperture_silenced"] < 0.1 * mouth["aperture_before_silence"]


@pytest.mark.full
def test_frames_come_back_and_a_driving_clip_sets_the_pose(head, clips):
    renderer = demo_figures.Unedited(demo.bundle())
    shown = [demo_figures.pictures(head, renderer, clip) for clip in clips]
    assert np.mean([clip["psnr_self"] for clip in shown]) > 26
    posed = [demo_figures.pose(head, renderer, clip, other) for clip, other in neighbours(clips)]
    assert np.mean([clip["pose_error_driven"] for clip in posed]) < 5


@pytest.mark.parametrize("size, strides", [(128, (4, 2)), (256, (8, 4)), (192, (6, 3)), (64, (2, 1)), (224, (7, 4))])
def test_other_sizes_are_seen_as_in_training(size, strides):
    """Its estimators know faces of 64 px, of which the detector takes every second pixel."""
    scaled = TalkingHead.from_bundle(demo.bundle(), size=size).speaking._renderer.config
    assert (scaled.kp_detector.stride, scaled.he_estimator.stride) == strides


def test_the_bundle_is_small_and_says_what_it_is():
    files = [file for file in demo.bundle().rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < MOST_BYTES
    card = (demo.bundle() / "MODEL_CARD.md").read_text()
    assert "synthetic" in card and "cannot" in card


def test_the_demo_runs_without_a_flag(tmp_path):
    command = [sys.executable, str(ROOT / "infer.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "out/demo.mp4" in done.stdout and "--alpha 0.2" in done.stdout
    info = probe(tmp_path / "out" / "demo.mp4")
    assert info.audio is not None
    assert info.duration_s == pytest.approx(probe(demo.example().audio).duration_s, abs=0.06)
