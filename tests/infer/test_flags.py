"""Each flag of `infer.py` reaches the setting that it names."""

import pytest
from absl.testing import flagsaver

import infer
from ctjax.infer.options import AnimateOptions
from ctjax.infer.talking_head import TalkingHead
from ctjax.motion.curve import Curve
from ctjax.types import Box


class _Handed(Exception):
    """Ends the command where the clip would begin."""


@pytest.fixture
def handed(media, tmp_path, monkeypatch):
    """What the command hands over for some flags: the head's settings, the clip's files, its options."""
    found = {}

    class Head:
        def animate(self, *, options, **files):
            found.update(options=options, files=files)
            raise _Handed

    def open_head(bundle, **settings):
        found.update(bundle=bundle, settings=settings)
        return Head()

    monkeypatch.setattr(TalkingHead, "from_bundle", open_head)

    def run(**flags):
        usual = {"bundle": "b", "source": media / "portrait.png", "audio": media / "speech.wav"}
        values = {name: str(value) for name, value in (usual | {"output": tmp_path / "out.mp4"} | flags).items()}
        with flagsaver.as_parsed(**values), pytest.raises(_Handed):
            infer.main()
        return found

    return run


def test_every_flag_arrives(handed, media, tmp_path):
    (tmp_path / "curve.csv").write_text("0,0.25\n1,0.5\n")
    of_clip = {"fps": 30.0, "face": 1, "crf": 20, "extend": "loop", "tracking": "fixed"}
    of_clip |= {"yaw": 5.0, "pitch": -6.0, "roll": 7.0, "silence_audio": str(media / "speech.wav")}
    of_head = {"size": 64, "dtype": "bfloat16", "chunk": 3}
    moves = {"driving": media / "head.mp4", "alpha_curve": tmp_path / "curve.csv", "crop_only": True}
    found = handed(**of_clip, **of_head, **moves)
    assert found["bundle"] == "b" and found["settings"] == of_head
    files = {"source": "portrait.png", "audio": "speech.wav", "driving": "head.mp4"}
    assert found["files"] == {name: str(media / file) for name, file in files.items()}
    options = found["options"]
    assert {name: getattr(options, name) for name in of_clip} == of_clip
    assert isinstance(options.alpha, Curve) and options.alpha.values.tolist() == [0.25, 0.5]
    assert options.layout == "crop" and options.box is None


def test_the_other_layouts_and_a_box(handed):
    options = handed(side_by_side=True, box="1,2,30,40", alpha=0.4)["options"]
    assert (options.layout, options.box, options.alpha) == ("side_by_side", Box(1, 2, 30, 40), 0.4)
    assert handed()["options"] == AnimateOptions()
