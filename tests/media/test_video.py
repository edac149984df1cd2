"""Frames in time, told by the numbers painted on them."""

import itertools

import numpy as np
import pytest
from clips import frame_number, numbered_frame, write_video

from ctjax.media import video
from ctjax.media.container import MediaError
from ctjax.media.video import VideoSource


def numbers(frames) -> list[int]:
    return [frame_number(frame) for frame in frames]


def test_every_frame_with_its_time(tmp_path):
    source = VideoSource(write_video(tmp_path / "a.mp4", 30, fps=30))
    times, frames = zip(*source.shown(), strict=True)
    assert numbers(frames) == list(range(30))
    np.testing.assert_allclose(times, np.arange(30) / 30, atol=1e-3)
    assert frames[0].shape == (64, 96, 3) == (source.height, source.width, 3)
    assert frames[0].dtype == np.uint8
    assert np.abs(frames[7].astype(int) - numbered_frame(7)).mean() < 8


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".ts", ".mov"])
@pytest.mark.parametrize("fps", [25, 24, 30])
def test_the_own_rate_passes_through(tmp_path, suffix, fps):
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    source = VideoSource(write_video(tmp_path / f"a{suffix}", 40, fps=fps, codec=codec))
    assert numbers(source.resampled(fps)) == list(range(40))


@pytest.mark.parametrize(("source_fps", "fps"), [(30, 25), (50, 25), (24, 25), (25, 30), (10, 25), (60, 12.5)])
def test_constant_rates_stay_within_half_a_frame_and_keep_the_length(tmp_path, source_fps, fps):
    source = VideoSource(write_video(tmp_path / "a.mp4", 2 * source_fps, fps=source_fps))
    got = np.array(numbers(source.resampled(fps)))
    assert len(got) == round(2 * fps)
    lag = np.arange(len(got)) / fps - got / source_fps  # output time less the time of the frame shown
    assert lag.min() > -0.5 / fps - 2e-3
    assert lag.max() < max(0.5 / fps, 1 / source_fps - 0.5 / fps) + 2e-3


def test_variable_rate_shows_what_was_being_shown(tmp_path):
    times = [0.0, 0.04, 0.08, 0.40, 0.44, 0.46, 0.48, 0.60]
    got = numbers(VideoSource(write_video(tmp_path / "a.mp4", 8, times_s=times)).resampled(25))
    assert got[:16] == [0, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 4, 6, 6, 6, 7]
    assert set(got[16:]) <= {7}


def test_a_picture_that_starts_after_its_sound(tmp_path):
    path = write_video(
        tmp_path / "a.mkv", 25, times_s=[0.4 + i / 25 for i in range(25)], audio_start_s=0.0, audio_duration_s=1.4
    )
    assert numbers(VideoSource(path).resampled(25)) == [0] * 10 + list(range(25))
    assert numbers(VideoSource(path, from_first_frame=True).resampled(25)) == list(range(25))


def test_a_picture_that_starts_before_its_sound(tmp_path):
    path = write_video(tmp_path / "a.mkv", 25, audio_start_s=0.4, audio_duration_s=0.6)
    assert numbers(VideoSource(path).resampled(25)) == list(range(25))


@pytest.mark.parametrize("turn_deg", [0, 90, 180, 270])
def test_rotation_metadata_is_obeyed(tmp_path, turn_deg):
    upright = [numbered_frame(i) for i in range(3)]
    # FFmpeg's rotation counts anticlockwise: the stored picture lies turned the other way.
    stored = [np.rot90(frame, -turn_deg // 90) for frame in upright]
    source = VideoSource(write_video(tmp_path / "a.mp4", stored, turn_deg=turn_deg))
    assert (source.height, source.width) == (64, 96)
    assert numbers(source.resampled(25)) == [0, 1, 2]
    assert numbers(source.frames(25, "pingpong", 5)) == [0, 1, 2, 1, 0]


@pytest.mark.parametrize("gop", [1, 7, 250])
@pytest.mark.parametrize("segment", [3, 8, 1000])
def test_pingpong_is_frame_exact(tmp_path, monkeypatch, gop, segment):
    monkeypatch.setattr(video, "_SEGMENT_FRAMES", segment)
    monkeypatch.setattr(video, "_SMALLEST_SEGMENT", 1)
    source = VideoSource(write_video(tmp_path / "a.mp4", 30, gop=gop))
    there, back = list(range(30)), list(range(28, 0, -1))
    got = list(source.frames(25, "pingpong", 130))
    assert numbers(got) == (there + back + there + back + there)[:130]
    np.testing.assert_array_equal(got[31], got[27])  # the same pixels, not only the same number


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".avi"])
def test_pingpong_in_other_containers(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(video, "_SEGMENT_FRAMES", 5)
    monkeypatch.setattr(video, "_SMALLEST_SEGMENT", 1)
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    source = VideoSource(write_video(tmp_path / f"a{suffix}", 24, codec=codec))
    assert (
        numbers(source.frames(25, "pingpong", 60)) == (list(range(24)) + list(range(22, 0, -1)) + list(range(24)))[:60]
    )


def test_pingpong_with_open_groups_of_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "_SEGMENT_FRAMES", 4)
    monkeypatch.setattr(video, "_SMALLEST_SEGMENT", 1)
    options = {"x264-params": "open-gop=1:bframes=3:keyint=10:min-keyint=10:scenecut=0"}
    source = VideoSource(write_video(tmp_path / "a.mp4", 40, gop=10, options=options))
    got = list(source.frames(25, "pingpong", 78))
    assert numbers(got) == list(range(40)) + list(range(38, 0, -1))
    for k in range(1, 39):
        np.testing.assert_array_equal(got[k], got[78 - k])


def test_pingpong_of_a_variable_rate_at_another_rate(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "_SEGMENT_FRAMES", 4)
    monkeypatch.setattr(video, "_SMALLEST_SEGMENT", 1)
    times = np.cumsum([0] + [0.04, 0.12, 0.02, 0.3, 0.05] * 5)
    source = VideoSource(write_video(tmp_path / "a.mp4", 26, times_s=times))
    once = numbers(source.resampled(25))
    assert numbers(source.frames(25, "pingpong", 2 * len(once) - 2)) == once + once[-2:0:-1]


def test_hold_and_loop(tmp_path):
    source = VideoSource(write_video(tmp_path / "a.mp4", 5))
    assert numbers(source.frames(25, "hold", 8)) == [0, 1, 2, 3, 4, 4, 4, 4]
    assert numbers(source.frames(25, "loop", 12)) == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert numbers(source.frames(25, "hold", 3)) == [0, 1, 2]
    assert list(source.frames(25, "loop", 0)) == []
    with pytest.raises(ValueError, match="pingpong, hold, loop"):
        source.frames(25, "backwards")


@pytest.mark.parametrize("mode", video.CONTINUATIONS)
@pytest.mark.parametrize("count", [1, 2])
def test_the_shortest_clips_go_on(tmp_path, mode, count):
    source = VideoSource(write_video(tmp_path / "a.mp4", count))
    got = numbers(itertools.islice(source.frames(25, mode), 7))
    assert got == ([0] * 7 if count == 1 else [0, 1, 1, 1, 1, 1, 1] if mode == "hold" else [0, 1, 0, 1, 0, 1, 0])


def test_frames_without_time_stamps_follow_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(video, "_SEGMENT_FRAMES", 4)
    source = VideoSource(write_video(tmp_path / "a.mp4", 20))
    decoded = video.decoded

    def unstamped(container, stream):
        for frame in decoded(container, stream):
            frame.pts = None
            yield frame

    monkeypatch.setattr(video, "decoded", unstamped)
    assert numbers(source.resampled(25)) == list(range(20))
    assert numbers(source.frames(25, "pingpong", 38)) == list(range(20)) + list(range(18, 0, -1))


def test_a_gif_is_a_video(tmp_path):
    from PIL import Image

    pictures = [Image.fromarray(numbered_frame(i)) for i in range(4)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=40)
    assert numbers(VideoSource(tmp_path / "a.gif").resampled(25)) == [0, 1, 2, 3]


def test_broken_pixel_aspect_is_ignored_and_a_real_one_obeyed(tmp_path):
    for ratio, width in (("2/5", 96), ("1/1", 96), ("4/3", 128), ("405/406", 96)):
        path = write_video(tmp_path / "a.mp4", 3, pixel_aspect=ratio)
        source = VideoSource(path)
        assert (source.height, source.width) == (64, width), ratio
        assert next(source.resampled(25)).shape == (64, width, 3)


def test_errors_are_one_line_that_names_the_file(tmp_path):
    from clips import tones, write_audio

    (tmp_path / "text.mp4").write_text("hello, not a video\n" * 50)
    (tmp_path / "text.txt").write_text("hello, not a video\n" * 50)
    (tmp_path / "empty.mp4").touch()
    write_audio(tmp_path / "sound.m4a", tones(0.5, 44100), 44100, "aac")
    data = write_video(tmp_path / "late_index.mp4", 60).read_bytes()
    (tmp_path / "late_index.mp4").write_bytes(data[: len(data) // 2])
    data = write_video(tmp_path / "early_index.mp4", 60, container_options={"movflags": "+faststart"}).read_bytes()
    (tmp_path / "early_index.mp4").write_bytes(data[: len(data) // 2])
    data = write_video(tmp_path / "cut.mkv", 60).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    cases = {
        "missing.mp4": "no such file",
        "text.mp4": "not a sound or video file",
        "text.txt": "not a sound or video file",
        "empty.mp4": "empty",
        "sound.m4a": "only sound",
        "late_index.mp4": "cut off",
        "early_index.mp4": "cut off",
        "cut.mkv": "cut off",
    }
    for name, complaint in cases.items():
        with pytest.raises(MediaError, match=complaint) as error:
            VideoSource(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_longer_track_that_is_not_read_cuts_nothing_off(tmp_path, suffix):
    """The sound in a second language may be longer; a container states the length of its longest track."""
    import av
    from clips import encode_audio, tones

    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        languages = [container.add_stream("aac", rate=44100, layout="stereo") for _ in range(2)]
        for i in range(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(numbered_frame(i), "rgb24")))
        container.mux(video.encode())
        for stream, seconds in zip(languages, (1.0, 3.0), strict=True):
            encode_audio(container, stream, tones(seconds, 44100), 44100)
    assert numbers(VideoSource(path).resampled(25)) == list(range(25))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match="cut off"):
        VideoSource(path)


def test_a_track_without_frames_is_refused(tmp_path):
    import av

    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        container.start_encoding()
    with pytest.raises(MediaError, match=r"a\.mkv"):
        VideoSource(tmp_path / "a.mkv")


def test_a_damaged_packet_does_not_end_the_run(tmp_path):
    data = bytearray(write_video(tmp_path / "a.mp4", 60, container_options={"movflags": "+faststart"}).read_bytes())
    middle = len(data) * 2 // 3
    data[middle : middle + 200] = b"\x00" * 200
    (tmp_path / "a.mp4").write_bytes(data)
    source = VideoSource(tmp_path / "a.mp4")
    got = numbers(source.resampled(25))
    assert len(got) == 60
    assert (np.diff([time for time, _ in source.shown()]) > 0).all()
    assert got[:20] == list(range(20))
