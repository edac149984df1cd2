"""What is wrong with the input is said in one line, before the work where possible, and nothing is left behind."""

import os
import pathlib
import shutil
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from absl.testing import flagsaver

import infer
from ctjax.infer.options import AnimateOptions
from ctjax.infer.talking_head import TalkingHead
from ctjax.media.image import write_image
from ctjax.media.video import VideoSource
from ctjax.motion.curve import Curve
from ctjax.types import Box, UserError
from ctjax.weights import fingerprint, open_bundle, save_bundle

ROOT = pathlib.Path(infer.__file__).parent


@pytest.fixture(scope="module")
def wrong(tmp_path_factory, media):
    """One file of each kind of wrong."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("This is a text.\n" * 50)
    (folder / "text.png").write_text("This is a text.\n" * 50)
    video = (media / "head.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(video[: len(video) // 2])
    sound = (media / "speech.wav").read_bytes()
    (folder / "cut.wav").write_bytes(sound[: len(sound) // 2])
    no_samples = sound[:4] + (36).to_bytes(4, "little") + sound[8:40] + (0).to_bytes(4, "little")
    (folder / "nothing.wav").write_bytes(no_samples)
    write_image(folder / "sky.png", np.full((160, 200, 3), (120, 160, 220), np.uint8))
    return folder


def run(tmp_path, **flags):
    """`infer.py` with these flags, in this process."""
    output = tmp_path / "out" / "clip.mp4"
    values = {"output": str(output), **{name: str(value) for name, value in flags.items()}}
    with flagsaver.as_parsed(**values):
        infer.main()


@pytest.mark.parametrize(
    ("flag", "name", "message"),
    [
        ("source", "missing.png", "no such file"),
        ("audio", "missing.wav", "no such file"),
        ("source", "empty.mp4", "empty"),
        ("source", "text.mp4", "not a sound or video file"),
        ("source", "text.png", "not a sound or video file|not a picture"),
        ("source", "cut.mp4", "cut off"),
        ("audio", "cut.wav", "cut off"),
        ("audio", "nothing.wav", "no sound|no samples"),
        ("audio", "sky.png", "not a sound"),
        ("driving", "text.mp4", "not a sound or video file"),
    ],
)
def test_wrong_files_are_named(tmp_path, bundle, media, wrong, flag, name, message):
    files = {"source": media / "portrait.png", "audio": media / "speech.wav", flag: wrong / name}
    with pytest.raises(UserError, match=message) as error:
        run(tmp_path, bundle=bundle, **files)
    assert str(wrong / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_no_face_says_where_was_searched(tmp_path, bundle, media, wrong, face_finder):
    with pytest.raises(UserError, match=r"sky\.png: no face found; --box"):
        run(tmp_path, bundle=bundle, source=wrong / "sky.png", audio=media / "speech.wav")
    assert not list(tmp_path.rglob("*.mp4"))


def test_no_face_in_a_whole_video_names_the_frames(tmp_path, head, media):
    from clips import write_video

    path = write_video(tmp_path / "empty.mp4", [np.full((96, 96, 3), 90, np.uint8)] * 12)
    with pytest.raises(UserError, match="no face found in its first 12 frames"):
        head.animate(source=path, audio=media / "speech.wav").save(tmp_path / "out.mp4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty.mp4"]


def test_a_face_that_is_not_there(head, media):
    with pytest.raises(UserError, match="face 3 .* there are only 1"):
        next(iter(head.animate(source=media / "portrait.png", audio=media / "speech.wav", face=3)))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"alpha": "nan"}, "alpha must be a number"),
        ({"alpha": "50"}, "alpha 50 makes no sense"),
        ({"fps": "0"}, "fps 0 makes no sense"),
        ({"yaw": "sideways"}, "yaw 'sideways' is neither a number nor a CSV"),
        ({"yaw": "200"}, "yaw 200 makes no sense"),
        ({"box": "1,2,3"}, "must be four numbers"),
        ({"box": "50,50,20,20"}, "x1 must be greater"),
        ({"box": "900,900,950,950"}, "outside the frame"),
        ({"size": "100"}, "size 100: this renderer takes multiples of 8"),
        ({"crf": "99"}, "crf 99 makes no sense"),
        ({"face": "-1"}, "face -1"),
        ({"box": "0,0,1e9,1e9"}, "3 times as large as the frame"),
        ({"size": "0"}, "size 0: this renderer takes multiples of 8"),
        ({"size": "1048576"}, "multiples of 8 up to 2048"),
        ({"chunk": "1000000"}, "chunk 1000000: choose 1 to 1024 frames"),
        ({"source": ""}, "--source is empty"),
        ({"bundle": ""}, "--bundle is empty"),
        ({"alpha": "1", "alpha_curve": "a.csv"}, "--alpha and --alpha_curve exclude each other"),
        ({"face": "0", "box": "1,1,90,90"}, "--face and --box exclude each other"),
        ({"crop_only": "true", "side_by_side": "true"}, "--crop_only and --side_by_side exclude each other"),
    ],
)
def test_senseless_flags(tmp_path, bundle, media, flags, message):
    usual = {"bundle": bundle, "source": media / "portrait.png", "audio": media / "speech.wav"}
    with pytest.raises(UserError, match=message):
        run(tmp_path, **(usual | flags))
    assert not list(tmp_path.rglob("*.mp4"))


@pytest.mark.parametrize(("name", "value"), [("alpha", 1e30), ("yaw", -1000)])
def test_a_curve_may_go_no_further_than_a_number(tmp_path, name, value):
    (tmp_path / "curve.csv").write_text(f"0,0\n1,{value}\n")
    with pytest.raises(UserError, match=f"{name} .* makes no sense"):
        AnimateOptions(**{name: Curve.read(tmp_path / "curve.csv")})


def test_numbers_of_every_kind_are_numbers():
    options = AnimateOptions(alpha=np.float32(0.5), fps=Fraction(30000, 1001), box=(1, 2, 30, 40))
    assert options.fps == pytest.approx(29.97, abs=0.001)
    assert options.box == Box(1, 2, 30, 40)
    with pytest.raises(UserError, match="face 'x'"):
        AnimateOptions(face="x")
    with pytest.raises(UserError, match="must be four numbers"):
        AnimateOptions(box=(1, 2, 3))


@pytest.mark.parametrize("flag", ["source", "audio", "driving", "output", "yaw", "silence_audio"])
def test_a_name_that_is_too_long(tmp_path, bundle, media, flag):
    usual = {"bundle": bundle, "source": media / "portrait.png", "audio": media / "speech.wav"}
    long = "x" * 300 + (".mp4" if flag == "output" else "")
    with pytest.raises(UserError, match="x{300}"):
        run(tmp_path, **(usual | {flag: long}))


def test_what_is_wrong_with_the_pictures_is_said_before_the_sound_is_listened_to(head, media, wrong, monkeypatch):
    from clips import write_video

    def listened(*_):
        raise AssertionError("the speech network was run")

    monkeypatch.setattr(head.features, "stream", listened)
    empty = write_video(wrong / "nobody.mp4", [np.full((96, 96, 3), 90, np.uint8)] * 12)
    usual = {"source": media / "portrait.png", "audio": media / "speech.wav"}
    for changed in ({"source": empty}, {"source": wrong / "sky.png"}, {"driving": empty}):
        with pytest.raises(UserError, match="no face found"):
            next(iter(head.animate(**(usual | changed))))
    with pytest.raises(UserError, match="no such file"):
        head.animate(**usual, silence_audio=wrong / "missing.wav")


def test_a_face_that_comes_when_the_sound_is_over(head, media, wrong):
    from clips import write_video

    filmed = VideoSource(media / "head.mp4").resampled(25)
    empty = np.full((128, 128, 3), 90, np.uint8)
    late = write_video(wrong / "late.mp4", [empty] * 45 + list(filmed))
    with pytest.raises(UserError, match="no face found in its first 33 frames"):
        next(iter(head.animate(source=late, audio=media / "speech.wav")))


def test_half_a_command(tmp_path, bundle, media):
    with pytest.raises(UserError, match="--bundle needs --source and --audio"):
        run(tmp_path, bundle=bundle, source=media / "portrait.png")


def test_a_bundle_of_another_network(tmp_path, bundle, media):
    mixed = tmp_path / "mixed"
    shutil.copytree(bundle, mixed)
    shutil.rmtree(mixed / "renderer")
    shutil.copytree(bundle / "hubert", mixed / "renderer")
    with pytest.raises(UserError, match="a bundle of hubert; one of facevid2vid is needed"):
        TalkingHead.from_bundle(mixed)
    with pytest.raises(UserError, match="no such bundle"):
        TalkingHead.from_bundle(tmp_path / "nowhere")


def test_a_speech_network_that_audio2exp_was_not_trained_on(tmp_path, bundle):
    mixed = tmp_path / "mixed"
    shutil.copytree(bundle, mixed)
    opened = open_bundle(mixed / "audio2exp")
    described = {"network": opened.network, "config": opened.config, "params": opened.params, "overwrite": True}
    save_bundle(mixed / "audio2exp", **described, provenance={"hubert": "0123456789abcdef"})
    with pytest.raises(UserError, match="trained on features of another speech network"):
        TalkingHead.from_bundle(mixed)
    own = fingerprint(open_bundle(mixed / "hubert").manifest)
    save_bundle(mixed / "audio2exp", **described, provenance={"hubert": own})
    TalkingHead.from_bundle(mixed)


def test_outputs_that_cannot_be_written(tmp_path, head, media):
    clip = head.animate(source=media / "portrait.png", audio=media / "speech.wav")
    with pytest.raises(UserError, match="must end in"):
        clip.save(tmp_path / "out.avi")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made|does not exist"):
        clip.save(tmp_path / "file" / "out.mp4")
    copy = tmp_path / "head.mp4"
    shutil.copy(media / "head.mp4", copy)
    with pytest.raises(UserError, match="is an input as well"):
        head.animate(source=copy, audio=media / "speech.wav").save(copy)
    with pytest.raises(UserError, match="is an input as well"):
        head.animate(source=media / "portrait.png", audio=media / "speech.wav", driving=copy).save(copy)
    with pytest.raises(UserError, match="must end in"):
        clip.save(tmp_path / "new" / "out.avi")
    assert not (tmp_path / "new").exists()


def test_a_clip_that_fails_midway_leaves_the_old_file(tmp_path, head, media, monkeypatch):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"an earlier result")
    clip = head.animate(source=media / "portrait.png", audio=media / "speech.wav")
    monkeypatch.setattr(clip, "_laid_out", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        clip.save(path)
    assert path.read_bytes() == b"an earlier result"
    assert list(tmp_path.iterdir()) == [path]


def test_unknown_options_are_named(head, media):
    with pytest.raises(UserError, match="unknown option alfa; there are .*alpha"):
        head.animate(source=media / "portrait.png", audio=media / "speech.wav", alfa=0.5)
    with pytest.raises(UserError, match="layout 'wide' is not one of"):
        AnimateOptions(layout="wide")
    with pytest.raises(UserError, match="x1 must be greater"):
        AnimateOptions(box=Box(5, 5, 5, 9))


def test_the_command_ends_with_status_1_and_one_line(tmp_path):
    command = [sys.executable, str(ROOT / "infer.py"), "--source=missing.png", "--audio=missing.wav"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    plain = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert plain.returncode == 1
    assert plain.stderr.strip().splitlines()[-1] == "infer.py: error: missing.wav: no such file"
    assert "Traceback" not in plain.stderr
    assert not list(tmp_path.rglob("*.mp4"))
