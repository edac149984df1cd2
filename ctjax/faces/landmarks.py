"""468 points on a face: MediaPipe's face mesh on OpenCV's network runtime, and the 68 points of the field.

Source of the network: Kartynnik et al. 2019, "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs".
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from ctjax.faces.detect import Detection, open_network
from ctjax.faces.models import MESH

INPUT = 192
POINTS = 468
REGION_SCALE = 1.5  # side of the region that is looked at, over the longer side of the face
# The 68 points of iBUG 300-W (dlib, face_alignment) by their nearest mesh points. Jaw, brows and nose bridge are
# spread evenly along the mesh's own lines, as the 68 are; eyes and lips are the mesh's corners and lids. The result
# differs from dlib's own by 3 % of the distance of the outer eye corners on the lips, by 2 % on the eyes.
MESH_TO_68 = (
    *(127, 234, 93, 58, 172, 136, 149, 176, 152, 400, 378, 365, 397, 288, 323, 454, 356),  # 0-16 jaw, ear to ear
    *(70, 63, 105, 66, 107),  # 17-21 the person's right brow, outside in
    *(336, 296, 334, 293, 300),  # 22-26 left brow, inside out
    *(168, 197, 5, 4),  # 27-30 bridge of the nose to its tip
    *(98, 97, 2, 326, 327),  # 31-35 under the nose
    *(33, 160, 158, 133, 153, 144),  # 36-41 right eye, from its outer corner over the upper lid
    *(362, 385, 387, 263, 373, 380),  # 42-47 left eye, from its inner corner over the upper lid
    *(61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91),  # 48-59 outer lip, from the right corner over the top
    *(78, 81, 13, 311, 308, 402, 14, 178),  # 60-67 inner lip, likewise
)
UPPER_INNER_LIP, LOWER_INNER_LIP = 62, 66  # of the 68: the middle of the opening
# Which of the 68 takes a point's place in the mirrored picture.
MIRRORED_68 = (
    *range(16, -1, -1),
    *range(26, 16, -1),
    *range(27, 31),
    *range(35, 30, -1),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *range(54, 47, -1),
    *range(59, 54, -1),
    *range(64, 59, -1),
    *range(67, 64, -1),
)
RIGHT_EYE_OUTER, LEFT_EYE_OUTER = 33, 263  # of the person, so the right one is on the left of the picture


class Region(NamedTuple):
    """A square turned by `angle_rad` (clockwise as seen), by its centre and side in pixels."""

    x: float
    y: float
    side: float
    angle_rad: float


class Mesh(NamedTuple):
    """presence in [0, 1]: is there a face at all; points float32 "468 3", pixels of the picture (z away from us)."""

    presence: float
    points: np.ndarray


class FaceMesh:
    """The mesh network. Raises: FaceModelError if its file cannot be had."""

    def __init__(self):
        self._net = open_network(MESH)
        self._outputs = self._net.getUnconnectedOutLayersNames()

    def fit(self, image_u8: np.ndarray, region: Region, passes: int = 1) -> Mesh:
        """The mesh of the face in `region` of uint8 "h w 3" RGB; each further pass looks again where it found it."""
        mesh = self._fit_once(image_u8, region)
        for _ in range(passes - 1):
            mesh = self._fit_once(image_u8, region_of_mesh(mesh.points))
        return mesh

    def _fit_once(self, image_u8: np.ndarray, region: Region) -> Mesh:
        step = region.side / INPUT
        cosine, sine = np.cos(region.angle_rad) * step, np.sin(region.angle_rad) * step
        turn = np.array([[cosine, -sine], [sine, cosine]])
        # Pixel centres lie at halves: input pixel i covers [i, i + 1).
        corner = (region.x, region.y) - turn @ (INPUT / 2, INPUT / 2)
        to_image = np.column_stack([turn, corner + turn @ (0.5, 0.5) - 0.5])
        crop = cv2.warpAffine(image_u8, to_image, (INPUT, INPUT), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        self._net.setInput((crop.astype(np.float32) / 255).transpose(2, 0, 1)[None])
        presence, points = sorted(self._net.forward(self._outputs), key=np.size)
        points = points.reshape(POINTS, 3)
        in_image = np.column_stack([points[:, :2] @ turn.T + corner, points[:, 2] * step])
        return Mesh(float(0.5 + 0.5 * np.tanh(presence.item() / 2)), in_image.astype(np.float32))


def region_of_detection(detection: Detection) -> Region:
    """The detector's box, enlarged and turned so that the eyes are level."""
    box, (right, left) = detection.box, detection.keypoints[:2]
    angle = np.arctan2(left[1] - right[1], left[0] - right[0])
    side = REGION_SCALE * max(box.width, box.height)
    return Region((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2, side, float(angle))


def region_of_mesh(points: np.ndarray) -> Region:
    """The smallest square around known landmarks "468 2+", eyes level, enlarged: where to look in the next frame."""
    eyes = points[LEFT_EYE_OUTER, :2] - points[RIGHT_EYE_OUTER, :2]
    angle = float(np.arctan2(eyes[1], eyes[0]))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    level = points[:, :2] @ turn
    low, high = level.min(axis=0), level.max(axis=0)
    x, y = turn @ ((low + high) / 2)
    return Region(float(x), float(y), float(REGION_SCALE * (high - low).max()), angle)


def to_68(points: np.ndarray) -> np.ndarray:
    """float32 "68 2": the field's 68 landmarks out of a mesh "468 2+" (MESH_TO_68)."""
    return np.asarray(points, np.float32)[list(MESH_TO_68), :2]
