"""Windows of feature steps: the released tool's rule against its record, and ours by its own promises."""

import numpy as np
import pytest
from parity import record

from ctjax.features import windows as w
from ctjax.types import UserError

RECORD = record("windows")


def _case(name):
    """win/T20_fps30.0 -> ("win", {"T": 20.0, "fps": 30.0})."""
    kind, _, rest = name.partition("/")
    numbers = {}
    for part in rest.split("_") if rest else ():
        key = part.rstrip("0123456789.")
        numbers[key] = float(part[len(key) :])
    return kind, numbers


@pytest.mark.parametrize("name", sorted(RECORD.outputs))
def test_reference_tables(name):
    kind, n = _case(name)
    want = RECORD.outputs[name]
    if kind == "win":
        got = w.reference_windows(int(n["T"]), n["fps"])
    elif kind == "cycle":
        got = w.reference_frame_cycle(int(n["frames"]), int(n["chunks"]), still=bool(n["img"]))
    elif kind == "datagen":
        got = w.reference_frame_cycle(int(n["frames"]), int(n["chunks"]))
    elif kind == "datagen_batches":
        got = w.batch_sizes(int(n["chunks"]), int(n["batch"]))
    elif kind == "sync_mel_start":
        got = w.sync_mel_starts(len(want))
    elif kind == "lse_mfcc_start":
        got = w.lse_mfcc_starts(len(want))
    else:
        from ctjax.features.hubert import HubertConfig

        assert name == "hubert_frames"
        config = HubertConfig.from_huggingface(record("hubert_tiny_base").config)
        got = np.array([(samples, config.steps(int(samples))) for samples in want[:, 0]])
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("fps", [12.0, 23.976, 25.0, 29.97, 30.0, 50.0, 60.0])
@pytest.mark.parametrize("samples", [1, 400, 1600, 16000, 16001, 22223, 160000])
def test_ours_lasts_as_long_as_the_sound(samples, fps):
    frames = w.frame_count(samples, 16000, fps)
    assert 0 <= frames / fps - samples / 16000 < 1 / fps + 1e-6 or frames == 1
    steps = max(1, (samples - 400) // 320 + 1)
    table = w.frame_windows(steps, frames, fps)
    assert table.shape == (frames, 18)
    assert table.min() >= 0 and table.max() <= steps - 1
    reference = w.reference_windows(steps, fps) if steps >= 18 else np.zeros((0, 2), np.int64)
    full = reference[:-1]  # all but the one that the released tool moved back
    np.testing.assert_array_equal(table[: len(full)], full[:, :1] + np.arange(18))


def test_windows_at_the_end_repeat_the_last_step():
    table = w.frame_windows(49, 25, 25.0)
    assert table[24].tolist() == [48] * 18
    assert table[23].tolist() == [46, 47] + [48] * 16


@pytest.mark.parametrize("fps", [10.0, 25.0, 29.97, 60.0, 120.0])
@pytest.mark.parametrize("chunk", [1, 3, 7, 18, 40, 500])
def test_stream_equals_table_and_holds_little(fps, chunk):
    steps = 333
    features = np.random.default_rng(0).standard_normal((steps, 4)).astype(np.float32)
    frames = w.frame_count(steps * 320 + 80, 16000, fps)
    stream = w.WindowStream(fps=fps, frames=frames)
    held = 0

    def chunks():
        nonlocal held
        for start in range(0, steps, chunk):
            yield features[start : start + chunk]
            held = max(held, len(stream._buffer))

    got = np.concatenate(list(stream.windows(chunks())))
    np.testing.assert_array_equal(got, features[w.frame_windows(steps, frames, fps)])
    assert held <= w.WINDOW_STEPS + chunk + 1


def test_stream_of_one_step():
    stream = w.WindowStream(fps=25.0, frames=3)
    got = np.concatenate(list(stream.windows([np.zeros((0, 2), np.float32), np.ones((1, 2), np.float32)])))
    assert got.shape == (3, 18, 2) and (got == 1).all()


@pytest.mark.parametrize("fps", [0.0, -25.0, float("nan"), float("inf")])
def test_senseless_fps_is_refused(fps):
    with pytest.raises(UserError, match="fps"):
        w.window_starts(3, fps)


def test_no_steps_is_refused():
    with pytest.raises(UserError, match="empty"):
        w.frame_windows(0, 3, 25.0)
    with pytest.raises(UserError, match="empty"):
        list(w.WindowStream(fps=25.0, frames=3).windows([]))
    with pytest.raises(ValueError, match="step, channel"):
        w.WindowStream(fps=25.0, frames=3).push(np.zeros(18))
