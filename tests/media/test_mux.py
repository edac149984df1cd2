"""What is written can be read again, in time and complete, or is not there."""

import os
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
from clips import frame_number, numbered_frame, tones, write_audio, write_video

from ctjax.media.audio import AudioFile, decoded_audio, read_audio
from ctjax.media.container import MediaError, probe
from ctjax.media.mux import GENERATED_COMMENT, VideoWriter, check_writable, frame_rate
from ctjax.media.video import VideoSource


def write(path, frames=50, size=(96, 64), fps=25, **options):
    with VideoWriter(path, size, fps, **options) as writer:
        for i in range(frames):
            writer.write(numbered_frame(i, *size))
    return path


def leftovers(folder):
    return [name for name in os.listdir(folder) if "partial" in name]


def test_frames_and_sound_come_back_in_time(tmp_path):
    sound = write_audio(tmp_path / "a.wav", tones(2.0, 44100), 44100)
    path = write(tmp_path / "out.mp4", 50, audio=sound)
    info = probe(path)
    assert abs(info.duration_s - 2.0) < 1e-3
    assert info.audio == (44100, 2)
    source = VideoSource(path)
    assert source.fps == 25
    assert [frame_number(frame) for frame in source.resampled(25)] == list(range(50))
    got = np.concatenate(list(decoded_audio(path)), axis=1)
    assert got.shape == (2, 88200)
    for channel, want in zip(got, tones(2.0, 44100), strict=True):  # left and right stay apart, no lag
        assert np.corrcoef(channel[2000:-2000], want[2000:-2000])[0, 1] > 0.995
    assert leftovers(tmp_path) == []


def test_the_stream_is_what_players_want(tmp_path):
    sound = write_audio(tmp_path / "a.wav", tones(1.0, 16000), 16000)
    path = write(tmp_path / "out.mp4", 25, audio=sound, metadata={"title": "A title"})
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt, audio.codec_context.name) == (
            "h264",
            "yuv420p",
            "aac",
        )
        assert (video.codec_context.colorspace, video.codec_context.color_primaries) == (1, 1)  # BT.709, tagged
        assert container.metadata["comment"] == GENERATED_COMMENT
        assert container.metadata["title"] == "A title"
        assert video.start_time == audio.start_time == 0
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # playable while it downloads


def test_colours_survive(tmp_path):
    colours = np.array(
        [[255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 150, 120], [20, 20, 20], [235, 240, 250]], np.uint8
    )
    image = np.repeat(np.repeat(colours[None], 16, axis=1), 64, axis=0)
    with VideoWriter(tmp_path / "out.mp4", (96, 64), 25, crf=10) as writer:
        for _ in range(3):
            writer.write(image)
    got = next(VideoSource(tmp_path / "out.mp4").resampled(25))
    assert np.abs(got[:, 4::16].astype(int) - image[:, 4::16]).max() <= 6


@pytest.mark.parametrize(("size", "stored"), [((97, 64), (98, 64)), ((96, 65), (96, 66)), ((99, 67), (100, 68))])
def test_odd_sizes_are_padded_by_their_own_edge(tmp_path, size, stored):
    image = np.full((size[1], size[0], 3), 40, np.uint8)
    image[-1], image[:, -1] = 220, 220
    with VideoWriter(tmp_path / "out.mp4", size, 25, crf=5) as writer:
        writer.write(image)
    got = next(VideoSource(tmp_path / "out.mp4").resampled(25))
    assert got.shape == (stored[1], stored[0], 3)
    padded = np.pad(image, ((0, stored[1] - size[1]), (0, stored[0] - size[0]), (0, 0)), mode="edge")
    assert np.abs(got.astype(int) - padded).mean() < 3


@pytest.mark.parametrize("fps", [12, 24, 25, 29.97, 30, 50, Fraction(30000, 1001)])
def test_any_rate(tmp_path, fps):
    sound = write_audio(tmp_path / "a.wav", tones(1.0, 22050, (440,)), 22050)
    frames = round(fps)
    path = write(tmp_path / "out.mp4", frames, fps=fps, audio=sound)
    assert abs(probe(path).duration_s - frames / fps) < 1e-2
    assert len(list(VideoSource(path).shown())) == frames


def test_rates_of_broadcast_are_exact():
    assert frame_rate(29.97) == frame_rate(30000 / 1001) == Fraction(30000, 1001)
    assert frame_rate(23.976) == Fraction(24000, 1001)
    assert frame_rate(23.98) == Fraction(24000, 1001)
    for whole in (1, 2, 5, 14, 25, 60, 240):
        assert frame_rate(whole) == frame_rate(float(whole)) == whole
    assert frame_rate(14.99) == Fraction(1499, 100)
    assert frame_rate(12.5) == Fraction(25, 2)
    for wrong in (0, -1, float("nan"), 1e9):
        with pytest.raises(MediaError, match="frames a second"):
            frame_rate(wrong)


@pytest.mark.parametrize("audio_s", [0.02, 0.5, 1.0, 1.019])
def test_the_tail_of_the_sound_is_kept(tmp_path, audio_s):
    """Whole frames never match a sound exactly: up to one frame of it may run past the last frame."""
    sound = write_audio(tmp_path / "a.wav", tones(audio_s, 16000), 16000)
    path = write(tmp_path / "out.mp4", max(1, round(audio_s * 25)), audio=sound)
    assert abs(AudioFile(path).count_samples() - round(audio_s * 16000)) <= 1
    assert abs(probe(path).duration_s - audio_s) <= 1 / 25


def test_sound_much_longer_than_the_picture_ends_with_it(tmp_path):
    sound = write_audio(tmp_path / "a.wav", tones(3.0, 16000), 16000)
    assert abs(probe(write(tmp_path / "out.mp4", 25, audio=sound)).duration_s - 1.0) <= 1 / 25 + 1e-3


@pytest.mark.parametrize(("rate", "channels", "stored"), [(8000, 1, 8000), (11000, 2, 11025), (192000, 2, 96000)])
def test_rates_that_aac_lacks_are_resampled(tmp_path, rate, channels, stored):
    sound = write_audio(tmp_path / "a.wav", tones(1.0, rate, (440, 880)[:channels]), rate)
    path = write(tmp_path / "out.mp4", 25, audio=sound)
    assert probe(path).audio == (stored, channels)
    want, got = read_audio(sound).samples, read_audio(path).samples
    assert np.corrcoef(want[1000:15000], got[1000:15000])[0, 1] > 0.99


def test_many_channels_become_their_mean(tmp_path):
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="5.1")
        data = np.random.default_rng(0).integers(-9000, 9000, (1, 6 * 16000), dtype=np.int16)
        frame = av.AudioFrame.from_ndarray(data, "s16", "5.1")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    path = write(tmp_path / "out.mp4", 25, audio=tmp_path / "a.wav")
    assert probe(path).audio == (16000, 1)


def test_sound_of_a_video_keeps_its_delay(tmp_path):
    clip = write_video(tmp_path / "a.mkv", 50, audio_start_s=0.5, audio_duration_s=1.5)
    samples = read_audio(write(tmp_path / "out.mp4", 50, audio=clip)).samples
    assert np.abs(samples[:7000]).max() < 0.02
    assert np.abs(samples[9000:30000]).std() > 0.1


def test_an_exception_leaves_nothing(tmp_path):
    (tmp_path / "out.mp4").write_text("from an earlier run")
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "out.mp4", (96, 64), 25) as writer:
        writer.write(numbered_frame(0))
        raise KeyboardInterrupt
    assert (tmp_path / "out.mp4").read_text() == "from an earlier run"
    assert leftovers(tmp_path) == []


def test_no_frames_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(MediaError, match="no frames"), VideoWriter(tmp_path / "out.mp4", (96, 64), 25):
        pass
    assert os.listdir(tmp_path) == []


def test_pictures_that_are_too_large_for_h264_are_known_before_the_work(tmp_path):
    with pytest.raises(MediaError, match="16386 x 64 pixels are more than H.264 can hold .16384 a side."):
        VideoWriter(tmp_path / "out.mp4", (16386, 64), 25)


def test_frames_of_another_size_or_type_are_refused(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", (96, 64), 25) as writer:
        writer.write(numbered_frame(0))
        for wrong in (numbered_frame(0, 98, 64), numbered_frame(0).astype(np.float32), numbered_frame(0)[..., 0]):
            with pytest.raises(ValueError, match="expected uint8"):
                writer.write(wrong)


def test_an_output_that_cannot_be_written_is_known_before_the_work(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    clip = write_video(tmp_path / "in.mp4", 3)
    cases = {
        tmp_path / "missing" / "out.mp4": "does not exist",
        tmp_path / "folder.mp4": "is a folder",
        tmp_path / "out.avi": "must end in",
        tmp_path / "out": "must end in",
        clip: "is an input as well",
    }
    for path, complaint in cases.items():
        with pytest.raises(MediaError, match=complaint):
            check_writable(path, inputs=[clip])
    assert leftovers(tmp_path) == []
    with pytest.raises(MediaError, match="has no sound"):
        VideoWriter(tmp_path / "out.mp4", (96, 64), 25, audio=clip)
    with pytest.raises(MediaError, match="pixels"):
        VideoWriter(tmp_path / "out.mp4", (0, 64), 25)


def test_a_folder_that_refuses_new_files(tmp_path, monkeypatch):
    def refuse(self, **_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.touch", refuse)  # the superuser, who runs tests in containers, may write anywhere
    with pytest.raises(MediaError, match=r"out\.mp4: cannot be written: Permission denied"):
        check_writable(tmp_path / "out.mp4")


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    path = write(tmp_path / "out.mp4", 2)
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_memory_does_not_grow_with_the_clip(tmp_path):
    """Python-side buffers only; decoders and encoders hold a fixed number of frames."""
    sound = write_audio(tmp_path / "a.wav", tones(40.0, 16000), 16000)
    peaks = []
    for frames in (100, 600):
        tracemalloc.start()
        write(tmp_path / "out.mp4", frames, audio=sound)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 300_000
