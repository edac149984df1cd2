"""Small videos of drawn faces with sound, and a finder that knows how they are drawn: no network, no person."""

import cv2
import numpy as np

from ctjax.faces.landmarks import MESH_TO_68, Mesh
from ctjax.media.audio import write_wav
from ctjax.media.mux import VideoWriter

SIZE = 128
SKIN = (200, 150, 120)


def frame(opening=0.3, x=64.0, y=64.0, scale=1.0, second=False, background=(40, 60, 90)):
    """RGB uint8 picture of one drawn face at (x, y), perhaps a second one in the corner."""
    image = np.full((SIZE, SIZE, 3), background, np.uint8)
    places = [(x, y, scale), (24.0, 24.0, 0.6)] if second else [(x, y, scale)]
    for cx, cy, s in places:
        axes = (round(24 * s), round(32 * s))
        cv2.ellipse(image, (round(cx), round(cy)), axes, 0, 0, 360, SKIN, -1)
        mouth = (round(cx), round(cy + 16 * s))
        cv2.ellipse(image, mouth, (round(9 * s), max(1, round(6 * s * opening))), 0, 0, 360, (60, 10, 10), -1)
    return image


def write_video(path, images, *, sound=True, seconds=None):
    """An mp4 at 25 frames a second; `sound`: False for none, else a hum as long as the pictures or `seconds`."""
    audio = None
    if sound:
        audio = path.with_suffix(".wav")
        length = int(16000 * (len(images) / 25 if seconds is None else seconds))
        hum = (8000 * np.sin(np.arange(length) * 0.2) * np.hanning(800)[np.arange(length) % 800]).astype(np.int16)
        write_wav(audio, hum)
    with VideoWriter(path, (SIZE, SIZE), 25, audio=audio) as writer:
        for image in images:
            writer.write(image)
    if audio is not None:
        audio.unlink()
    return path


class ColourFinder:
    """Finds skin-coloured ellipses; a mesh whose extents are the ellipse's."""

    def find(self, image_u8, *, small=False):
        skin = (np.abs(image_u8.astype(int) - SKIN).sum(-1) < 90).astype(np.uint8)
        count, _, stats, _ = cv2.connectedComponentsWithStats(skin)
        boxes = [stats[i, :4] for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] > 150]
        return [self._mesh(*box) for box in sorted(boxes, key=lambda box: box[0])]

    def find_near(self, image_u8, box):
        return self.find(image_u8)

    def follow(self, image_u8, previous):
        meshes = self.find(image_u8)
        if not meshes:
            return None
        distance = [np.abs(m.points[:, :2].mean(0) - previous.points[:, :2].mean(0)).sum() for m in meshes]
        return meshes[int(np.argmin(distance))] if min(distance) < 30 else None

    @staticmethod
    def _mesh(x, y, width, height):
        points = np.zeros((468, 3), np.float32)
        angle = np.linspace(0, 2 * np.pi, 468)
        points[:, 0] = x + width / 2 * (1 + np.cos(angle))
        points[:, 1] = y + height / 2 * (1 + np.sin(angle))
        marks = points[list(MESH_TO_68)]
        marks[8] = (x + width / 2, y + height, 0)  # chin
        marks[29], marks[33] = (x + width / 2, y + height * 0.5, 0), (x + width / 2, y + height * 0.62, 0)
        marks[48], marks[54] = (x + width * 0.3, y + height * 0.75, 0), (x + width * 0.7, y + height * 0.75, 0)
        points[list(MESH_TO_68)] = marks
        return Mesh(1.0, points)
