"""Synthetic sound and video for tests: frames that carry their number, tones, and every kind of awkward file."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from fractions import Fraction

import av
import cv2
import numpy as np

_ID_BITS = 12
_CELL = 8  # pixels; large enough to survive any codec


def numbered_frame(number: int, width: int = 96, height: int = 64) -> np.ndarray:
    """uint8 "h w 3": `number` in black and white cells along the top, a moving square below."""
    image = np.full((height, width, 3), 128, np.uint8)
    for bit in range(_ID_BITS):
        image[:_CELL, bit * _CELL : (bit + 1) * _CELL] = 255 * (number >> bit & 1)
    x = 3 * number % (width - 16)
    image[24:40, x : x + 16] = (200, 60, 60)
    return image


def frame_number(image: np.ndarray) -> int:
    """The number painted by `numbered_frame`."""
    middles = image[_CELL // 2, _CELL // 2 : _ID_BITS * _CELL : _CELL].mean(axis=-1)
    return int(sum(1 << bit for bit, value in enumerate(middles) if value > 127))


def write_video(
    path: pathlib.Path,
    frames: int | Sequence[np.ndarray] = 50,
    *,
    times_s: Sequence[float] | None = None,
    fps: int = 25,
    codec: str = "libx264",
    gop: int = 12,
    turn_deg: float | None = None,
    pixel_aspect: str | None = None,
    audio_start_s: float | None = None,
    audio_duration_s: float = 2.0,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> pathlib.Path:
    """A clip of numbered frames, or of given ones; sound (440 Hz left, 880 Hz right) if `audio_start_s` is given."""
    time_base = Fraction(1, fps if path.suffix == ".avi" else 1000)  # AVI counts frames
    images = [numbered_frame(i) for i in range(frames)] if isinstance(frames, int) else frames
    with av.open(str(path), "w", options=container_options or {}) as container:
        video = container.add_stream(codec, rate=fps, options=options or {})
        video.height, video.width = images[0].shape[:2]
        video.pix_fmt = "yuv420p"
        video.codec_context.gop_size = gop
        video.codec_context.time_base = time_base
        if pixel_aspect is not None:
            video.codec_context.sample_aspect_ratio = Fraction(pixel_aspect)
        if turn_deg is not None:
            video.set_display_rotation(turn_deg)
        audio = None
        if audio_start_s is not None:
            audio = container.add_stream("aac" if path.suffix != ".avi" else "mp2", rate=44100, layout="stereo")
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
            frame.pts = round((times_s[i] if times_s is not None else i / fps) / time_base)
            frame.time_base = time_base
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if audio is not None:
            encode_audio(container, audio, tones(audio_duration_s, 44100), 44100, audio_start_s)
    return path


def tones(duration_s: float, rate_hz: int, hz: Sequence[float] = (440.0, 880.0)) -> np.ndarray:
    """float32 "c s", one tone a channel at half scale."""
    time = np.arange(round(duration_s * rate_hz)) / rate_hz
    return np.stack([0.5 * np.sin(2 * np.pi * f * time) for f in hz]).astype(np.float32)


def encode_audio(container, stream, samples: np.ndarray, rate_hz: int, start_s: float = 0.0) -> None:
    layout = "stereo" if len(samples) == 2 else "mono"
    for begin in range(0, samples.shape[1], 1024):
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, begin : begin + 1024]), "fltp", layout)
        frame.sample_rate, frame.time_base = rate_hz, Fraction(1, rate_hz)
        frame.pts = begin + round(start_s * rate_hz)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def write_audio(path: pathlib.Path, samples: np.ndarray, rate_hz: int, codec: str = "pcm_s16le") -> pathlib.Path:
    """`samples` float32 "c s" in the container the name asks for."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate_hz, layout="stereo" if len(samples) == 2 else "mono")
        encode_audio(container, stream, samples, rate_hz)
    return path


def cartoon(
    height: int = 240,
    width: int = 320,
    faces: Sequence[tuple[float, float, float]] = ((160, 120, 120),),
    mouth_open: float = 0.0,
) -> np.ndarray:
    """uint8 "h w 3": drawn faces by (x, y of the middle, height in pixels), just enough of a face for BlazeFace.

    No picture of a person stands behind it.
    """
    scale = 4  # drawn large and shrunk: smooth edges
    image = np.full((height * scale, width * scale, 3), (150, 170, 180), np.uint8)
    image[:] = np.linspace(0.8, 1.1, width * scale)[None, :, None] * image
    for face in faces:
        x, y, size = (value * scale for value in face)
        _draw_face(image, x, y, size / 200, mouth_open)
    image = cv2.GaussianBlur(image, (0, 0), scale * 0.8)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _draw_face(image: np.ndarray, x: float, y: float, unit: float, mouth_open: float) -> None:
    def oval(dx, dy, wide, tall, colour, start=0, end=360, angle=0):
        middle = (round(x + dx * unit), round(y + dy * unit))
        axes = (max(1, round(wide * unit)), max(1, round(tall * unit)))
        cv2.ellipse(image, middle, axes, angle, start, end, colour, -1, cv2.LINE_AA)

    hair, skin, shade, dark = (70, 45, 30), (225, 180, 150), (190, 140, 115), (40, 25, 20)
    oval(0, -25, 88, 105, hair)
    oval(0, 130, 45, 60, shade)  # neck
    oval(0, 210, 150, 80, (60, 80, 120))  # shoulders
    oval(0, 0, 74, 98, skin)
    oval(0, -85, 66, 28, hair)
    for side in (-1, 1):
        oval(side * 76, 0, 10, 22, shade)  # ear
        oval(side * 31, -22, 22, 14, shade)  # socket
        oval(side * 31, -18, 16, 8, (245, 245, 245))
        oval(side * 31, -18, 7, 8, dark)
        oval(side * 31, -38, 22, 5, hair, angle=side * 6)  # brow
        oval(side * 40, 25, 18, 12, (228, 165, 140))  # cheek
    oval(0, 5, 8, 26, (235, 195, 165))
    oval(0, 28, 17, 9, shade)
    for side in (-1, 1):
        oval(side * 8, 31, 5, 3, dark)  # nostril
    oval(0, 58, 30, 9 + 14 * mouth_open, (175, 70, 75))
    oval(0, 58, 22, 1 + 14 * mouth_open, (80, 20, 25))
    oval(0, 80, 22, 6, shade)  # chin
