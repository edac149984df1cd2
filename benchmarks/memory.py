"""Memory of `infer.py` by the clip's length: `python benchmarks/memory.py --seconds 10 300`.

Makes a 1080p video of a synthetic head and sounds of the given lengths, runs `infer.py` on them as a process of its own
and prints the most memory each needed. The video is as long as the sound: a minute of it is drawn and encoded, its
packets are then repeated (`--looped` leaves the repeating to `infer.py`). `--fps` is the output's, to save time.
"""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

import av
import numpy as np

from ctjax.data.synthetic.articulation import Mouth
from ctjax.data.synthetic.head import Gesture, Head
from ctjax.data.synthetic.identity import draw_identity
from ctjax.infer.demo import example
from ctjax.media.audio import read_audio, write_wav
from ctjax.media.mux import VideoWriter

FPS, WIDTH, HEIGHT, HEAD_PX = 25, 1920, 1080, 640
DRAWN = 50  # frames of the head, shown to and fro
ENCODED_S = 60.0


def frames(count: int):
    """RGB frames of a head that turns and opens its mouth, moving slowly across a 1080p picture."""
    head = Head(draw_identity(5), HEAD_PX)
    phases = np.linspace(0, 2 * np.pi, DRAWN, endpoint=False)
    pictures = [
        head.draw(
            Mouth(*map(np.float64, (0.3 + 0.3 * np.sin(3 * p), 0, 0, 0, 0, 0, 0.2))), Gesture(yaw_deg=10 * np.sin(p))
        )[0]
        for p in phases
    ]
    for i in range(count):
        picture = pictures[i % DRAWN]
        whole = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        whole[:] = picture[2, 2]
        left = int(WIDTH / 2 - HEAD_PX / 2 + 300 * np.sin(i / 200))
        whole[200 : 200 + HEAD_PX, left : left + HEAD_PX] = picture
        yield whole


def write_video(path: pathlib.Path, seconds: float) -> None:
    """A video of so many seconds; beyond `ENCODED_S` its packets come again."""
    count, encoded = round(seconds * FPS), round(min(seconds, ENCODED_S) * FPS)
    minute = path.with_name("minute.mp4")
    with VideoWriter(minute, (WIDTH, HEIGHT), FPS, crf=28) as writer:
        for frame in frames(encoded):
            writer.write(frame)
    with av.open(str(minute)) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        packets = [packet for packet in source.demux(stream) if packet.size]
        copy = target.add_stream_from_template(stream)
        step = round(1 / FPS / stream.time_base)
        data = [(bytes(packet), packet.pts, packet.dts, packet.is_keyframe) for packet in packets]
        for i in range(count):
            content, pts, dts, key = data[i % encoded]
            packet, late = av.Packet(content), i // encoded * encoded * step
            packet.pts, packet.dts, packet.time_base, packet.is_keyframe = pts + late, dts + late, stream.time_base, key
            packet.stream = copy
            target.mux(packet)


def write_sound(path: pathlib.Path, seconds: float) -> None:
    speech = read_audio(example().audio).samples
    samples = np.tile(speech, int(np.ceil(seconds * 16_000 / len(speech))))[: int(seconds * 16_000)]
    write_wav(path, np.round(samples * 32767))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 120])
    parser.add_argument("--bundle", help="a talking head; the demo's if not given")
    parser.add_argument("--looped", action="store_true", help="repeat ten seconds of video")
    parser.add_argument("--fps", type=float, default=FPS, help="of the output")
    chosen = parser.parse_args()
    print("| seconds | video | peak memory, MB | wall, s |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for seconds in chosen.seconds:
            video, sound, output = (pathlib.Path(folder) / name for name in ("video.mp4", "sound.wav", "out.mp4"))
            length = min(seconds, 10) if chosen.looped else seconds
            write_video(video, length)
            write_sound(sound, seconds)
            command = [sys.executable, str(ROOT / "infer.py"), f"--source={video}", f"--audio={sound}"]
            command += [f"--output={output}", "--extend=loop", f"--fps={chosen.fps:g}"]
            command += [f"--bundle={chosen.bundle}"] if chosen.bundle else []
            begin = time.perf_counter()
            peak = _run(command)
            print(f"| {seconds:g} | {length:g} s | {peak / 1e6:.0f} | {time.perf_counter() - begin:.0f} |", flush=True)


def _run(command: list[str]) -> float:
    """Runs it and returns the most bytes it held. Every run is a grandchild, so that each has its own count."""
    script = (
        "import resource, subprocess, sys\n"
        "subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *command], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1]) * 1024


if __name__ == "__main__":
    main()
