"""The sheet of pictures that training shows."""

import numpy as np

from ctjax.nn.sampling import corner_grid
from ctjax.train import renderer_pictures as pictures


def _grid(batch):
    return np.tile(np.asarray(corner_grid((2, 8, 8))), (batch, 1, 1, 1, 1))


def test_a_row_for_each_example_under_a_caption():
    images = [np.full((2, 32, 32, 3), value, np.float32) for value in (0.0, 0.25, 0.5, 0.75, 1.0)]
    shown = pictures.Shown(*images, np.zeros((2, 3, 3)), _grid(2), np.full((2, 8, 8, 1), 0.2, np.float32))
    sheet = pictures.sheet(shown)
    assert sheet.shape == (pictures.CAPTION_PX + 64, 32 * len(pictures.COLUMNS), 3)
    assert sheet.dtype == np.uint8
    middle = sheet[pictures.CAPTION_PX + 20, 4::32, 0]
    np.testing.assert_array_equal(middle[[0, 1, 2, 3, 4, 7]], [0, 64, 128, 191, 255, 51])


def test_no_motion_is_black_and_directions_differ():
    grid = _grid(1)[0]
    assert pictures.motion_colours(grid).max() == 0
    right, down = (pictures.motion_colours(grid + offset) for offset in ([0.4, 0, 0], [0, 0.4, 0]))
    assert right.max() > 100
    assert abs(right.astype(int) - down).max() > 100


def test_keypoints_are_drawn_where_they_are():
    black = np.zeros((65, 65, 3), np.uint8)
    drawn = pictures.draw_keypoints(black, np.array([[-1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]))
    assert drawn[32, 0].any()
    assert drawn[64, 64].any()
    assert not drawn[10, 32].any()
    assert not black.any()
