"""One evaluation from a request to files, rendered rows included, and the command line's errors."""

import dataclasses
import html
import json
import os
import pathlib
import re
import subprocess
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree

import cv2
import numpy as np
import pytest
import scored_clips
import small_head
from scored_clips import Finder, openings, sound_of

from ctjax.evaluate import clips, command, output, renders
from ctjax.evaluate.catalogue import Settings
from ctjax.faces.landmarks import Mesh
from ctjax.faces.models import FaceModelError
from ctjax.render.renderer import Renderer
from ctjax.types import UserError

ROOT = pathlib.Path(__file__).parents[2]
FRAMES = 12
ALPHAS = (0.0, 0.5, 1.0)
NAME = "one & <two> #3?%41"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("command")
    opened = openings(FRAMES)
    scored_clips.write(root / "real" / f"{NAME}.mp4", opened, sound=sound_of(opened))
    scored_clips.write(root / "made" / f"{NAME}.mp4", opened, sound=sound_of(opened), crf=35)
    (root / "file").write_text("")
    (root / "broken" / "renderer").mkdir(parents=True)
    (root / "broken" / "renderer" / "manifest.json").write_text("{}")
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


def _file(folder, link):
    """The file that a browser opens for a link in the page."""
    return folder / os.fsdecode(urllib.parse.unquote_to_bytes(html.unescape(link)))


def test_the_report_s_players_find_their_clips(done, folders):
    page = (folders / "out" / "report.html").read_text()
    links = re.findall(r'<video[^>]* src="([^"]+)"', page)
    assert len(links) == 5
    for link in links:
        assert _file(folders / "out", link).is_file(), link


def test_the_sweep_shows_the_mouth_opening_with_alpha(done, folders):
    evaluation, _ = done
    rows = {row.name: row for row in evaluation.rows}
    means = [rows[f"alpha={alpha:g}"].summary("aperture_mean").mean for alpha in ALPHAS]
    assert means[0] < means[1] < means[2]
    assert means[2] == pytest.approx(rows["reference"].summary("aperture_mean").mean, rel=0.05)
    picture = ElementTree.fromstring((folders / "out" / "sweep.svg").read_text())
    titles = [title.text for title in picture.iter("{http://www.w3.org/2000/svg}title")]
    assert any("mouth aperture, mean" in title for title in titles) and len(titles) >= 10


def test_rendered_clips_are_reused_while_nothing_changes(folders, tmp_path, monkeypatch):
    speaker = Speaker()
    pairs, _ = clips.match(folders / "made", folders / "real")
    for made_by, want in (({"bundle": "a"}, 1), ({"bundle": "a"}, 1), ({"bundle": "b"}, 2)):
        renders.rendered_row("alpha=1", pairs, tmp_path, made_by, speaker(1.0), [])
        assert speaker.clips == want
    monkeypatch.setattr(renders, "software_digest", lambda: "other sources")
    renders.rendered_row("alpha=1", pairs, tmp_path, {"bundle": "b"}, speaker(1.0), [])
    assert speaker.clips == 3


def test_a_note_never_speaks_of_another_file(tmp_path):
    target, note = tmp_path / "a.mp4", tmp_path / "a.json"
    made = []

    def make(name):
        made.append(name)
        target.write_text(name)
        if name == "b":
            raise KeyboardInterrupt

    output.make_noted(target, note, "a", lambda: make("a"))
    with pytest.raises(KeyboardInterrupt):
        output.make_noted(target, note, "b", lambda: make("b"))
    for _ in range(2):
        output.make_noted(target, note, "a", lambda: make("a"))
    assert made == ["a", "b", "a"] and target.read_text() == "a"


def test_a_changed_bundle_has_another_digest(head, tmp_path):
    before = command.bundle_digest(str(head))
    manifest = head / "audio2exp" / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text + "\n")
    assert command.bundle_digest(str(head)) != before
    manifest.write_text(text)
    with pytest.raises(UserError, match="holds no bundle"):
        command.bundle_digest(str(tmp_path))


class PaintedMesh:
    """Stands in for the face networks: the mesh's points lie around the painted face, on a diamond."""

    def find(self, frame, *, small=False):
        corners = np.array([(64, 34, 0), (94, 69, 0), (64, 104, 0), (34, 69, 0)], np.float32)
        points = np.repeat(corners, 117, axis=0)
        return [Mesh(1.0, points)] if scored_clips.opening_of(frame) else []

    def find_near(self, frame, box):
        return self.find(frame)

    def follow(self, frame, previous):
        return next(iter(self.find(frame)), None)


@pytest.mark.full
def test_the_no_edit_row_redraws_the_face_and_nothing_else(head, tmp_path, monkeypatch):
    # the fast formulation, equal by its own tests, takes long to compile
    monkeypatch.setattr(renders, "fastest", lambda config, params: (Renderer(config), params))
    hidden = 16
    reference = scored_clips.write(tmp_path / "a.mp4", [3, 5, 7, *[0] * hidden, 6])
    frames = list(clips.frames(reference))
    rebuild = renders.Reconstruction(str(head / "renderer"), PaintedMesh())
    rebuilt = list(rebuild(reference))
    assert len(rebuilt) == len(frames) == hidden + 4 and rebuilt[0].dtype == np.uint8
    change = np.abs(np.int16(rebuilt) - np.int16(frames)).max(3)
    assert change[:3, 66, 64].min() > 10 and change[-1, 66, 64] > 10
    assert change[:, 28:36, 28:36].max() == 0  # well within the crop, which begins at (11, 12), but beside the face
    assert change[3:15, 66, 64].min() > 0  # as long as the face may be behind a hand ...
    assert change[15:19].max() == 0  # ... and then as filmed, as inference has it
    with pytest.raises(UserError, match="none.mp4: no face was found in any frame"):
        next(rebuild(scored_clips.write(tmp_path / "none.mp4", [0] * 3)))


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


def _paint(path, level, suffix_codec):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*suffix_codec), 25, (64, 48))
    for _ in range(5):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_a_copy_of_another_run_s_clip_is_not_shown(tmp_path, suffix):
    """A later run may bring older files of the same names."""
    media = tmp_path / "media"
    media.mkdir()
    shown = []
    for level in (50, 200, 200):
        folder = tmp_path / str(level)
        folder.mkdir(exist_ok=True)
        clip = _paint(folder / "a.avi", level, "MJPG")
        if suffix == ".mp4":
            clip = scored_clips.write(folder / "a.mp4", [level // 20] * 3)
        os.utime(clip, (level, level))
        copy = output.playable_copy(clip, media)
        shown.append((round(float(next(clips.frames(copy))[2:20, 2:20].mean()), -1), copy.stat().st_ino))
    assert abs(shown[0][0] - shown[1][0]) > 50
    assert shown[1] == shown[2]  # and what is the same is not copied again


def test_a_copy_that_fails_leaves_nothing(tmp_path, monkeypatch):
    clip = scored_clips.write(tmp_path / "a.mp4", [3] * 3)

    def full(source, target):
        pathlib.Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output.shutil, "copyfile", full)
    (tmp_path / "media").mkdir()
    with pytest.raises(UserError, match="No space left"):
        output.playable_copy(clip, tmp_path / "media")
    assert list((tmp_path / "media").iterdir()) == []


def test_a_clip_that_cannot_be_shown_costs_no_table(folders, tmp_path, monkeypatch, capsys):
    copy = output.playable_copy

    def failing(path, folder):
        if folder.name == "reference":
            assert (tmp_path / "out" / "results.json").exists() and "SSIM" in capsys.readouterr().out
            raise OSError(28, "No space left on device")
        return copy(path, folder)

    monkeypatch.setattr(output, "playable_copy", failing)
    made = str(folders / "made")
    done = command.run(command.Request(made, str(folders / "real"), tmp_path / "out", batch=8, find=Finder()))
    assert not done.failures
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("<video") == 1 and "No player" in page and "No space left on device" in page


def test_a_file_name_need_not_be_text(tmp_path, capsys):
    name = os.fsdecode(b"caf\xe9")
    for folder in ("real", "made"):
        path = scored_clips.write(tmp_path / folder / "a.mp4", openings(FRAMES))
        path.rename(path.with_name(f"{name}.mp4"))
    out = tmp_path / "out"
    request = command.Request(str(tmp_path / "made"), str(tmp_path / "real"), out, batch=8, find=Finder())
    assert not command.run(request).failures
    assert "caf\\udce9" in capsys.readouterr().out and "caf\\udce9" in (out / "table.md").read_text()
    assert json.loads((out / "results.json").read_text())["rows"][0]["clips"][0]["clip"] == name
    links = re.findall(r'<video[^>]* src="([^"]+)"', (out / "report.html").read_text())
    assert len(links) == 2 and all(_file(out, link).is_file() for link in links)


def test_what_no_clip_can_do_without_is_opened_first(request_, tmp_path, monkeypatch):
    rendered = []

    def at_alpha(alpha):
        if alpha == ALPHAS[-1]:
            raise UserError("no such head")
        return lambda path: rendered.append(path) or clips.frames(path)

    with pytest.raises(UserError, match="no such head"):
        command.run(dataclasses.replace(request_, output=tmp_path), at_alpha)

    def absent():
        raise FaceModelError("no face networks")

    monkeypatch.setattr("ctjax.evaluate.faces.FaceFinder", absent)
    with pytest.raises(FaceModelError):
        command.run(dataclasses.replace(request_, output=tmp_path, find=None), Speaker())
    assert not rendered and not (tmp_path / "renders").exists()


@pytest.mark.parametrize(("text", "want"), [("all", 0), ("12", 12)])
def test_frames_for_fid(text, want):
    assert command.frame_number(text) == want


@pytest.mark.parametrize("text", ["some", "1", "-3", "2.5", "²"])
def test_frames_for_fid_that_make_no_sense(text):
    with pytest.raises(UserError, match="--fid_frames"):
        command.frame_number(text)


def test_alphas_are_sorted_numbers():
    assert command.alphas(["1", "0", "0.25", "1.0", "-0"]) == (0.0, 0.25, 1.0)
    for wrong in ("loud", "nan", "inf", "-inf", "5.1", "-6"):
        with pytest.raises(UserError, match="--sweep_alpha=0,.*: give numbers from -5 to 5"):
            command.alphas(["0", wrong])


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
        (["--reference=real", "--sweep_alpha=0", "--bundle=broken"], "not the manifest of a ctjax bundle"),
    ],
)
def test_bad_input_is_one_clear_line(folders, flags, message):
    run = subprocess.run(
        [sys.executable, str(ROOT / "evaluate.py"), *flags], cwd=folders, capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1 and message in lines[0] and "Traceback" not in run.stderr, run.stderr
