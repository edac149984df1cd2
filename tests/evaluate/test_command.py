"""One evaluation from a request to files, rendered rows included, and the command line's errors."""

import json
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import cv2
import numpy as np
import pytest
import scored_clips
import small_head
from scored_clips import Finder, openings, sound_of

from ctjax.evaluate import clips, command, output, renders
from ctjax.evaluate.catalogue import Settings
from ctjax.render.renderer import Renderer
from ctjax.types import UserError

ROOT = pathlib.Path(__file__).parents[2]
FRAMES = 12
ALPHAS = (0.0, 0.5, 1.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("command")
    for seed, name in enumerate(("one & <two>",)):
        opened = openings(FRAMES, seed)
        scored_clips.write(root / "real" / f"{name}.mp4", opened, sound=sound_of(opened))
        scored_clips.write(root / "made" / f"{name}.mp4", opened, sound=sound_of(opened), crf=35)
    (root / "file").write_text("")
    return root


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    return small_head.save(tmp_path_factory.mktemp("head"))


class Speaker:
    """Stands in for a talking head: the mouth opens `alpha` as far as in the reference. Counts its clips."""

    def __init__(self):
        self.clips = 0

    def __call__(self, alpha):
        def render(path):
            self.clips += 1
            for frame in clips.frames(path):
                yield scored_clips.frame_of(1 + round(alpha * (scored_clips.opening_of(frame) - 1)))

        return render


@pytest.fixture(scope="module")
def request_(folders, head):
    return command.Request(
        generated=str(folders / "made"),
        reference=str(folders / "real"),
        output=folders / "out",
        settings=Settings(lmd=("aligned", "interocular")),
        alphas=ALPHAS,
        talking_head=str(head),
        batch=8,
        find=Finder(),
    )


@pytest.fixture(scope="module")
def done(request_):
    speaker = Speaker()
    return command.run(request_, speaker), speaker


def test_the_folder_holds_every_form_of_the_result(done, folders):
    evaluation, _ = done
    assert not evaluation.failures
    names = {path.name for path in (folders / "out").iterdir()}
    assert names == {
        "results.json",
        "summary.csv",
        "clips.csv",
        "table.md",
        "report.html",
        "sweep.svg",
        "media",
        "renders",
    }
    content = json.loads((folders / "out" / "results.json").read_text())
    assert [row["row"] for row in content["rows"]] == ["generated", "alpha=0", "alpha=0.5", "alpha=1", "reference"]
    assert "f_lmd_interocular" in content["rows"][0]["means"]


def test_the_report_s_players_find_their_clips(done, folders):
    page = (folders / "out" / "report.html").read_text()
    links = re.findall(r'<video[^>]* src="([^"]+)"', page)
    assert len(links) == 5
    for link in links:
        assert (folders / "out" / link.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")).is_file(), link


def test_the_sweep_shows_the_mouth_opening_with_alpha(done, folders):
    evaluation, _ = done
    rows = {row.name: row for row in evaluation.rows}
    means = [rows[f"alpha={alpha:g}"].summary("aperture_mean").mean for alpha in ALPHAS]
    assert means[0] < means[1] < means[2]
    assert means[2] == pytest.approx(rows["reference"].summary("aperture_mean").mean, rel=0.05)
    picture = ElementTree.fromstring((folders / "out" / "sweep.svg").read_text())
    titles = [title.text for title in picture.iter("{http://www.w3.org/2000/svg}title")]
    assert any("mouth aperture, mean" in title for title in titles) and len(titles) >= 10


def test_rendered_clips_are_reused_while_nothing_changes(folders, tmp_path):
    speaker = Speaker()
    pairs, _ = clips.match(folders / "made", folders / "real")
    for made_by, want in (({"bundle": "a"}, 1), ({"bundle": "a"}, 1), ({"bundle": "b"}, 2)):
        renders.rendered_row("alpha=1", pairs, tmp_path, made_by, speaker(1.0), [])
        assert speaker.clips == want


def test_a_changed_bundle_has_another_digest(head, tmp_path):
    before = command.bundle_digest(str(head))
    manifest = head / "audio2exp" / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text + "\n")
    assert command.bundle_digest(str(head)) != before
    manifest.write_text(text)
    with pytest.raises(UserError, match="holds no bundle"):
        command.bundle_digest(str(tmp_path))


def test_the_no_edit_row_redraws_the_face_and_nothing_else(folders, head, monkeypatch):
    # the fast formulation, equal by its own tests, takes long to compile
    monkeypatch.setattr(renders, "fastest", lambda config, params: (Renderer(config), params))
    reference = folders / "real" / "one & <two>.mp4"
    frames = list(clips.frames(reference))
    rebuilt = list(renders.Reconstruction(str(head / "renderer"), Finder())(reference))
    assert len(rebuilt) == len(frames) and rebuilt[0].dtype == np.uint8
    change = np.abs(np.int16(rebuilt) - np.int16(frames)).max((0, 3))
    assert change[:, :5].max() == change[:7].max() == 0  # the crop reaches from 5 to 123 and from 7 to 125
    assert change[66, 64] > 10


def test_a_clip_that_cannot_be_rendered_is_listed(folders, tmp_path):
    failures = []
    (pair,), _ = clips.match(folders / "made", folders / "real")

    def render(path):
        if path.name == "none.mp4":
            raise UserError("no face in it")
        return clips.frames(path)

    (tmp_path / "none.mp4").write_bytes(b"")
    none = clips.Pair("none", tmp_path / "none.mp4", tmp_path / "none.mp4")
    made = renders.rendered_row("no-edit", [none, pair], tmp_path, {"by": 1}, render, failures)
    assert [p.name for p in made] == [pair.name]
    assert [(f.row, f.clip, f.reason) for f in failures] == [("no-edit", "none", "no face in it")]
    assert sorted(p.name for p in (tmp_path / "no-edit").iterdir()) == [f"{pair.name}.json", f"{pair.name}.mp4"]


def test_copies_for_the_report_are_playable(tmp_path):
    import av

    old = tmp_path / "old.avi"
    writer = cv2.VideoWriter(str(old), cv2.VideoWriter_fourcc(*"MJPG"), 25, (64, 48))
    for _ in range(5):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    (tmp_path / "media").mkdir()
    copy = output.playable_copy(old, tmp_path / "media")
    with av.open(str(copy)) as container:
        assert copy.suffix == ".mp4" and container.streams.video[0].codec_context.name == "h264"
        assert "generated" not in container.metadata.get("comment", "")


@pytest.mark.parametrize(("text", "want"), [("all", 0), ("12", 12)])
def test_frames_for_fid(text, want):
    assert command.frame_number(text) == want


@pytest.mark.parametrize("text", ["some", "1", "-3", "2.5"])
def test_frames_for_fid_that_make_no_sense(text):
    with pytest.raises(UserError, match="--fid_frames"):
        command.frame_number(text)


def test_alphas_are_sorted_numbers():
    assert command.alphas(["1", "0", "0.25", "1.0"]) == (0.0, 0.25, 1.0)
    with pytest.raises(UserError, match="--sweep_alpha"):
        command.alphas(["0", "loud"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give --reference and --generated"),
        (["--generated=absent", "--reference=absent"], "--generated=absent: no such folder"),
        (["--generated=made", "--reference=real", "--sync_bundle=real"], "not a bundle"),
        (
            ["--generated=made", "--reference=real", "--output=file/out"],
            "--output=file/out: cannot be made",
        ),
        (["--reference=real", "--sweep_alpha=0,1"], "--sweep_alpha and --bundle belong together"),
    ],
)
def test_bad_input_is_one_clear_line(folders, flags, message):
    run = subprocess.run(
        [sys.executable, str(ROOT / "evaluate.py"), *flags], cwd=folders, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1 and message in lines[0] and "Traceback" not in run.stderr, run.stderr
