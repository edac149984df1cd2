"""Sound of any kind comes out as librosa would load it: mono mean, soxr at high quality, at its own time."""

import itertools
import struct

import av
import av.stream
import numpy as np
import pytest
import soxr
from clips import tones, write_audio, write_video

from ctjax.media.audio import AudioFile, blocks_of, decoded_audio, read_audio
from ctjax.media.container import MediaError, probe

FORMATS = [("wav", "pcm_s16le"), ("wav", "pcm_s24le"), ("wav", "pcm_f32le"), ("wav", "pcm_u8"), ("aiff", "pcm_s16be")]
FORMATS += [("flac", "flac"), ("m4a", "aac"), ("mp3", "libmp3lame"), ("ogg", "libopus")]
EXACT = {"pcm_s16le": 2e-5, "pcm_s24le": 3e-7, "pcm_f32le": 1e-7, "pcm_u8": 5e-3, "pcm_s16be": 2e-5, "flac": 2e-5}


@pytest.mark.parametrize(("suffix", "codec"), FORMATS)
def test_every_format_gives_the_channel_mean_resampled_by_soxr(tmp_path, suffix, codec):
    rate = 48000
    sound = tones(1.3, rate)
    clip = read_audio(write_audio(tmp_path / f"a.{suffix}", sound, rate, codec))
    want = soxr.resample(sound.mean(axis=0), rate, 16000, quality="HQ")
    assert clip.sample_rate_hz == 16000
    assert clip.samples.dtype == np.float32
    assert abs(clip.duration_s - 1.3) < (1e-4 if codec in EXACT else 0.03)
    length = min(len(want), len(clip.samples))
    got, want = clip.samples[:length], want[:length]
    if codec in EXACT:
        assert np.abs(got - want).max() < EXACT[codec]
    else:  # a lag of one sample in 16000 would bring the correlation down to 0.97
        assert np.corrcoef(got[400:-800], want[400:-800])[0, 1] > 0.995


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 44100, 96000])
def test_streaming_equals_the_whole_at_any_rate(tmp_path, rate):
    sound = np.random.default_rng(0).normal(0, 0.2, (1, rate // 3 + 17)).astype(np.float32)
    file = AudioFile(write_audio(tmp_path / "a.wav", sound, rate, "pcm_f32le"))
    blocks = list(file.blocks(1000))
    assert all(len(block) == 1000 for block in blocks[:-1])
    got = np.concatenate(blocks)
    want = sound[0] if rate == 16000 else soxr.resample(sound[0], rate, 16000, quality="HQ")
    assert len(got) == -(-sound.shape[1] * 16000 // rate) == file.count_samples()
    np.testing.assert_allclose(got[: len(want)], want[: len(got)], atol=1e-6)
    np.testing.assert_array_equal(np.concatenate(list(file.blocks(333))), got)  # again, cut otherwise


@pytest.mark.parametrize("duration_s", [0.0005, 0.1])
def test_very_short_sound(tmp_path, duration_s):
    clip = read_audio(write_audio(tmp_path / "a.wav", tones(duration_s, 44100), 44100))
    assert clip.samples.size == -(-round(duration_s * 44100) * 16000 // 44100)
    assert np.isfinite(clip.samples).all()


def test_silence_stays_silent(tmp_path):
    clip = read_audio(write_audio(tmp_path / "a.wav", np.zeros((1, 16000), np.float32), 16000))
    assert clip.samples.shape == (16000,)
    assert not clip.samples.any()


def test_sound_of_a_video_that_starts_later_than_the_picture(tmp_path):
    path = write_video(tmp_path / "a.mkv", 50, audio_start_s=0.5, audio_duration_s=1.0)
    samples = read_audio(path).samples
    assert abs(len(samples) / 16000 - 1.5) < 0.03
    assert np.abs(samples[: round(0.45 * 16000)]).max() < 1e-3
    assert np.abs(samples[round(0.55 * 16000) : round(1.4 * 16000)]).std() > 0.1


def test_sound_that_starts_first_keeps_its_place(tmp_path):
    path = write_video(
        tmp_path / "a.mkv", 25, times_s=[1 + i / 25 for i in range(25)], audio_start_s=0.0, audio_duration_s=2.0
    )
    samples = read_audio(path).samples
    assert np.abs(samples[800:8000]).std() > 0.1
    assert abs(len(samples) / 16000 - 2.0) < 0.03


def test_a_hole_in_the_time_stamps_is_silence(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        sound = tones(1.0, 16000, (440,))
        for start_s in (0.0, 2.0):
            for begin in range(0, 16000, 1000):
                frame = av.AudioFrame.from_ndarray(
                    (sound[:, begin : begin + 1000] * 32767).astype(np.int16), "s16", "mono"
                )
                frame.sample_rate, frame.pts = 16000, begin + round(start_s * 16000)
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    samples = read_audio(tmp_path / "a.mkv").samples
    assert len(samples) == 48000
    assert not samples[16000:32000].any()
    np.testing.assert_allclose(samples[32000:], sound[0], atol=1e-4)


def test_cover_art_is_not_a_video(tmp_path):
    write_audio(tmp_path / "plain.m4a", tones(0.5, 44100), 44100, "aac")
    with (
        av.open(str(tmp_path / "plain.m4a")) as source,
        av.open(str(tmp_path / "cover.m4a"), "w", format="mp4") as target,
    ):
        cover = target.add_stream("png", rate=1)
        cover.width, cover.height, cover.pix_fmt = 16, 16, "rgb24"
        cover.disposition = av.stream.Disposition.attached_pic
        sound = target.add_stream_from_template(source.streams.audio[0])
        target.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), "rgb24")))
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = sound
                target.mux(packet)
    info = probe(tmp_path / "cover.m4a")
    assert info.video is None
    assert info.audio.channels == 2


def test_errors_are_one_line_that_names_the_file(tmp_path):
    (tmp_path / "text.wav").write_text("hello, not sound\n" * 50)
    (tmp_path / "empty.wav").touch()
    whole = write_audio(tmp_path / "whole.wav", tones(2.0, 16000), 16000).read_bytes()
    (tmp_path / "short.wav").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "none.wav").write_bytes(_wav_header_only())
    write_video(tmp_path / "mute.mp4", 5)
    cases = {
        "missing.wav": "no such file",
        "text.wav": "not a sound or video file",
        "empty.wav": "empty",
        "short.wav": "cut off",
        "none.wav": "has no sound",
        "mute.mp4": "only video",
        ".": "is not a file",
    }
    for name, complaint in cases.items():
        with pytest.raises(MediaError, match=complaint) as error:
            AudioFile(tmp_path / name)
        assert str(tmp_path) in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("suffix", "codec"), [("flac", "flac"), ("aiff", "pcm_s16be"), ("m4a", "aac")])
def test_truncated_sound_is_refused(tmp_path, suffix, codec):
    noise = np.random.default_rng(0).normal(0, 0.2, (2, 88200)).astype(np.float32)
    path = write_audio(tmp_path / f"a.{suffix}", noise, 44100, codec)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match="cut off"):
        AudioFile(path)


def test_a_recorder_that_never_wrote_the_size_is_read(tmp_path):
    path = write_audio(tmp_path / "a.wav", tones(1.0, 16000), 16000)
    data = bytearray(path.read_bytes())
    data[4:8] = b"\xff\xff\xff\xff"
    at = data.index(b"data") + 4
    data[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert abs(read_audio(path).duration_s - 1.0) < 1e-3


def test_channels_and_rate_are_the_files_own(tmp_path):
    path = write_audio(tmp_path / "a.wav", tones(0.5, 44100), 44100, "pcm_f32le")
    sound = np.concatenate(list(decoded_audio(path)), axis=1)
    np.testing.assert_array_equal(sound, tones(0.5, 44100))


def test_a_playlist_opens_no_other_file(tmp_path):
    inner = write_audio(tmp_path / "a.wav", tones(0.2, 16000), 16000)
    (tmp_path / "list.wav").write_text(f"ffconcat version 1.0\nfile {inner}\n")
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{inner}\n#EXT-X-ENDLIST\n")
    for name in ("list.wav", "list.m3u8"):
        with pytest.raises(MediaError, match="not a sound or video file"):
            AudioFile(tmp_path / name)


def test_blocks_are_cut_anew():
    pieces = [np.arange(n) for n in (0, 3, 10, 1, 0, 7)]
    blocks = list(blocks_of(iter(pieces), 4))
    assert [len(block) for block in blocks] == [4, 4, 4, 4, 4, 1]
    assert list(itertools.chain(*blocks)) == list(itertools.chain(*pieces))
    assert list(blocks_of(iter([]), 4)) == []


def _wav_header_only() -> bytes:
    layout = struct.pack("<HHIIHH", 1, 1, 16000, 32000, 2, 16)
    return (
        b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + struct.pack("<I", 16) + layout + b"data" + struct.pack("<I", 0)
    )
