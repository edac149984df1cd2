"""Following one face: on drawn blobs with a stand-in finder, and on drawn faces with the real one."""

import itertools

import numpy as np
import pytest
from clips import cartoon

from ctjax.faces.boxes import centre, crop_box, extents
from ctjax.faces.detect import overlap
from ctjax.faces.find import NoFaceError
from ctjax.faces.landmarks import Mesh
from ctjax.faces.track import FaceTracker, fixed_track
from ctjax.types import Box

HEIGHT, WIDTH = 90, 160


class BlobFinder:
    """Takes each square of one gray level for a face; counts its own work."""

    def __init__(self):
        self.searches = self.follows = 0

    def find(self, image_u8, *, small=False):
        self.searches += 1
        found = []
        for level in np.unique(image_u8[..., 0])[1:]:
            rows, columns = np.nonzero(image_u8[..., 0] == level)
            if small or len(rows) >= 100:
                found.append(blob_mesh(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        return sorted(found, key=lambda mesh: mesh.points[:, 0].mean())

    def find_near(self, image_u8, box):
        return [mesh for mesh in self.find(image_u8) if overlap(extents(mesh.points), box) > 0]

    def follow(self, image_u8, previous):
        self.follows += 1
        return next((m for m in self.find_near(image_u8, extents(previous.points))), None)


def blob_mesh(x0, y0, x1, y1):
    spread = np.linspace(0, 1, 468)
    points = np.stack([x0 + spread * (x1 - x0), y0 + spread * (y1 - y0), 0 * spread], axis=-1)
    return Mesh(1.0, points.astype(np.float32))


def frame(*blobs):
    """Squares (x, y of the middle, side), each of its own gray level."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for level, (x, y, side) in enumerate(blobs, 1):
        x0, y0 = round(x - side / 2), round(y - side / 2)
        image[max(0, y0) : max(0, y0 + side), max(0, x0) : max(0, x0 + side)] = 40 * level
    return image


def track(frames, which=None, **options):
    tracker = FaceTracker(BlobFinder(), which, **options)
    faces = []
    for image, (shown, face) in zip(frames, tracker.track(frames, frames, "clip.mp4"), strict=True):
        assert shown is image
        faces.append(face)
    return faces


def middles(faces):
    return np.array([centre(face.box) for face in faces])


def test_a_face_at_rest_has_the_box_of_its_landmarks():
    faces = track([frame((80, 45, 30))] * 20)
    assert {face.box for face in faces} == {crop_box(blob_mesh(65, 30, 95, 60).points)}
    assert all(face.seen for face in faces)
    np.testing.assert_array_equal(faces[3].points, blob_mesh(65, 30, 95, 60).points)


def test_small_movements_leave_the_box_alone():
    rng = np.random.default_rng(0)
    wobble = [frame((80 + rng.integers(-2, 3), 45 + rng.integers(-2, 3), 30 + rng.integers(-1, 2))) for _ in range(60)]
    assert len({face.box for face in track(wobble)}) == 1


def test_a_walking_face_stays_near_the_middle_and_the_box_moves_smoothly():
    xs = np.concatenate([np.full(20, 40.0), np.linspace(40, 120, 60), np.full(20, 120.0)])
    faces = track([frame((x, 45, 30)) for x in xs])
    got = middles(faces)[:, 0]
    side = faces[0].box.width
    assert np.abs(got - xs).max() < 0.12 * side
    assert np.abs(np.diff(got)).max() <= 3
    assert np.abs(middles(faces)[:, 1] - middles(faces)[0, 1]).max() == 0
    assert {face.box.width for face in faces} == {side}


def test_a_growing_face_grows_the_box():
    sides = np.linspace(20, 40, 50).round().astype(int)
    faces = track([frame((80, 45, side)) for side in sides])
    ratios = np.array([face.box.width for face in faces]) / (sides * 1.09 * 1.4)
    assert np.abs(np.log(ratios)).max() < 0.12
    assert faces[-1].box.width > 1.6 * faces[0].box.width


def test_a_fixed_box_never_moves():
    faces = track([frame((40 + i, 45, 30)) for i in range(60)], fixed=True)
    assert len({face.box for face in faces}) == 1
    assert abs(middles(faces)[0, 0] - 40) < 6
    assert all(face.seen for face in faces)


def test_frames_without_a_face_keep_the_last_box():
    there, gone = frame((60, 45, 30)), frame()
    faces = track([there] * 15 + [gone] * 30 + [there] * 15)
    assert [face.seen for face in faces] == [True] * 15 + [False] * 30 + [True] * 15
    assert [face.lost for face in faces] == [False] * 27 + [True] * 18 + [False] * 15  # a short gap is none
    assert len({face.box for face in faces}) == 1


@pytest.mark.parametrize(("frames_per_second", "kept"), [(25, 12), (60, 30), (10, 5)])
def test_a_face_is_awaited_for_half_a_second(frames_per_second, kept):
    faces = track([frame((50, 45, 20))] + [frame()] * 40, frames_per_second=frames_per_second)
    assert [face.lost for face in faces] == [False] * (1 + kept) + [True] * (40 - kept)


def test_a_face_that_comes_back_elsewhere_gets_its_box_at_once():
    faces = track([frame((40, 45, 30))] * 15 + [frame()] * 20 + [frame((120, 45, 30))] * 15)
    assert faces[34].box == faces[0].box
    assert abs(middles(faces)[35, 0] - 120) <= 1
    assert faces[35].box == faces[-1].box


def test_leading_frames_without_a_face_take_the_first_box():
    faces = track([frame()] * 23 + [frame((120, 45, 30))] * 10)
    assert len({face.box for face in faces}) == 1
    assert all(face.lost and not face.seen for face in faces[:23])
    assert all(face.seen for face in faces[26:])


def test_identity_is_kept_where_a_larger_face_comes_in():
    first = [frame((40, 45, 24))] * 10
    both = [frame((40, 45, 24), (120, 45, 60))] * 30
    assert np.abs(middles(track(first + both))[:, 0] - 40).max() <= 1


def test_another_face_is_not_taken_for_the_lost_one_at_once():
    both = [frame((40, 45, 30), (125, 45, 30))] * 10
    other = [frame((125, 45, 30))]
    briefly = track(both + other * 8 + both, which=0)
    assert np.abs(middles(briefly)[:, 0] - 40).max() <= 1
    assert not any(face.seen for face in briefly[10:18])
    for_good = track(both + other * 40, which=0)
    assert abs(middles(for_good)[-1, 0] - 125) <= 1


def test_the_face_asked_for_is_counted_from_the_left():
    clip = [frame((30, 45, 20), (80, 45, 40), (140, 45, 24))] * 5
    assert round(middles(track(clip))[0, 0]) == 80  # the largest
    assert [round(middles(track(clip, which))[0, 0]) for which in (0, 1, 2)] == [30, 80, 140]


def test_the_face_asked_for_may_come_later():
    faces = track([frame((30, 45, 30))] * 10 + [frame((30, 45, 30), (120, 45, 30))] * 10, which=1)
    assert {round(x) for x in middles(faces)[:, 0]} == {120}
    assert not any(face.seen for face in faces[:10])


def test_small_faces_are_searched_for_where_there_is_no_other():
    faces = track([frame((120, 45, 8))] * 6)
    assert round(middles(faces)[0, 0]) == 120


def test_no_face_is_an_error_that_says_where_was_searched():
    where = r"in its first 30 frames \(every 5th was searched\); --box"
    with pytest.raises(NoFaceError, match=rf"clip\.mp4: no face found {where}"):
        track([frame()] * 30)
    with pytest.raises(NoFaceError, match=rf"clip\.mp4: face 2 .*only 1 {where}"):
        track([frame((80, 45, 30))] * 30, which=2)
    with pytest.raises(NoFaceError, match="no frames"):
        track([])


def test_the_error_comes_before_the_first_frame():
    with pytest.raises(NoFaceError):
        FaceTracker(BlobFinder()).track([frame()], iter([frame()]))


def test_a_bounded_number_of_frames_is_held():
    drawn = 0

    def endless():
        nonlocal drawn
        for i in itertools.count():
            drawn += 1
            yield frame((80 + 20 * np.sin(i / 9), 45, 30))

    tracked = FaceTracker(BlobFinder()).track([frame((80, 45, 30))], endless())
    for used, _ in enumerate(itertools.islice(tracked, 300), 1):
        assert drawn - used <= 10


def test_the_detector_rests_while_the_face_is_followed():
    finder = BlobFinder()
    clip = [frame((80, 45, 30))] * 50
    list(FaceTracker(finder).track(clip, clip))
    assert finder.follows == 49
    assert finder.searches - finder.follows <= 2


def test_a_box_by_hand_needs_no_face():
    pairs = list(fixed_track([frame()] * 3, Box(10.2, 20.1, 40.2, 50.1)))
    assert [face.box for _, face in pairs] == [Box(10, 20, 40, 50)] * 3
    assert not any(face.seen or face.lost for _, face in pairs)


def test_drawn_faces_are_followed_by_the_real_finder(face_finder):
    xs = [120] * 4 + list(np.linspace(120, 200, 16)) + [200] * 4
    clip = [cartoon(faces=[(x, 120, 110)]) for x in xs]
    clip[10:10] = [cartoon(faces=[])] * 3
    faces = [face for _, face in FaceTracker(face_finder).track(clip, clip)]
    assert [face.seen for face in faces] == [not 10 <= i < 13 for i in range(27)]
    seen = np.array([centre(face.box)[0] for face in faces])
    assert np.abs(np.delete(seen, range(10, 13)) - xs).max() < 0.15 * faces[0].box.width
