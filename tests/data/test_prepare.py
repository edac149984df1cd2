"""Preparing footage: what is kept, what is dropped and why, and that a kill loses nothing and doubles nothing."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from ctjax import config
from ctjax.data import cutting, footage, prepare
from ctjax.data.cutting import CutConfig
from ctjax.data.prepare import PrepareConfig
from ctjax.data.records import RecordSet
from ctjax.data.sync_offset import Offset, SyncGate
from ctjax.types import UserError

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))
import fake_footage  # noqa: E402
from fake_footage import ColourFinder, frame, write_video  # noqa: E402

CUT = CutConfig(size=64, min_seconds=0.4, max_seconds=2.0, min_face_px=24)


def talk(count, **place):
    return [frame(0.5 + 0.5 * np.sin(i), **place) for i in range(count)]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """One of each kind: two good ones, and everything that can be wrong."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "anna").mkdir()
    write_video(folder / "anna" / "good.mp4", talk(75))
    write_video(folder / "bert_1.mp4", talk(30, x=70))
    write_video(folder / "far_away_1.mp4", talk(30, scale=0.35))
    write_video(folder / "mute_1.mp4", talk(30), sound=False)
    write_video(folder / "nobody_1.mp4", [np.full((128, 128, 3), 90, np.uint8)] * 30)
    write_video(folder / "crowd_1.mp4", talk(30, second=True, x=80, y=80))
    scene = [frame(0.5, background=(230, 230, 40)) for _ in range(20)]
    write_video(folder / "scenes_1.mp4", talk(20) + scene + [np.full((128, 128, 3), 90, np.uint8)] * 10)
    write_video(folder / "wander_1.mp4", [frame(0.5, x=30 + 2.2 * i) for i in range(32)])
    write_video(folder / "ends_early_1.mp4", talk(40), seconds=0.8)
    (folder / "text_1.mp4").write_text("not a video")
    whole = (folder / "bert_1.mp4").read_bytes()
    (folder / "cut_off_1.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "empty_1.mp4").write_bytes(b"")
    return folder


@pytest.fixture(autouse=True)
def drawn_faces(monkeypatch):
    monkeypatch.setattr(cutting, "_finder", ColourFinder)


def settings(videos, output, **changes):
    return PrepareConfig(**({"source": str(videos), "output": str(output), "cut": CUT, "workers": 0} | changes))


@pytest.fixture(scope="module")
def prepared(videos, tmp_path_factory):
    output = tmp_path_factory.mktemp("out") / "records"
    patch = pytest.MonkeyPatch()
    patch.setattr(cutting, "_finder", ColourFinder)
    summary = prepare.prepare(settings(videos, output))
    patch.undo()
    return output, summary


def of(prepared, name):
    found = RecordSet([prepared[0]])
    return [found[i] for i, clip in enumerate(found.clips) if clip.id.startswith(name)]


def test_a_good_video_is_cut_into_clips_without_losing_a_frame(prepared):
    clips = of(prepared, "anna/good.mp4")
    assert [clip.info.id for clip in clips] == ["anna/good.mp4@0.00", "anna/good.mp4@1.48"]
    assert sum(clip.info.frames for clip in clips) == 75 and {clip.info.person for clip in clips} == {"anna"}
    for clip in clips:
        assert len(clip["samples"]) == clip.info.frames * 640
        assert clip["landmarks"].shape == (clip.info.frames, 68, 2)
        assert clip.images([0, clip.info.frames - 1]).shape == (2, 64, 64, 3)
        assert np.abs(clip["samples"]).max() > 1000


def test_the_crop_holds_the_face_and_its_landmarks(prepared):
    clip = of(prepared, "bert_1.mp4")[0]
    image, points = clip.images([3])[0], clip["landmarks"][3]
    skin = np.abs(image.astype(int) - fake_footage.SKIN).sum(-1) < 90
    rows, columns = np.nonzero(skin)
    assert points[8, 1] == pytest.approx(rows.max(), abs=1.5)
    assert points[8, 0] == pytest.approx((columns.min() + columns.max()) / 2, abs=1.5)
    assert 0.15 < skin.mean() < 0.5  # a face and its margin


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("far_away_1.mp4", "face too small"),
        ("mute_1.mp4", "has no sound"),
        ("nobody_1.mp4", "no face"),
        ("crowd_1.mp4", "two faces"),
        ("text_1.mp4", ""),
        ("cut_off_1.mp4", ""),
        ("empty_1.mp4", ""),
    ],
)
def test_what_cannot_be_used_is_listed_with_the_reason(prepared, name, reason):
    output, summary = prepared
    assert reason in summary.nothing[name] and summary.nothing[name]
    report = json.loads((output / "report.json").read_text())
    assert report["nothing"][name] == summary.nothing[name]
    page = (output / "report.html").read_text()
    assert name in page and "<script" not in page


def test_a_shot_change_ends_a_clip(prepared):
    clips = of(prepared, "scenes_1.mp4")
    assert [(clip.info.id[-4:], clip.info.frames) for clip in clips] == [("0.00", 20), ("0.80", 20)]
    assert prepared[1].dropped_s["no face"] >= 0.4


def test_a_wandering_face_gets_shorter_clips_with_boxes_of_their_own(prepared):
    clips = of(prepared, "wander_1.mp4")
    assert len(clips) > 1 or "face leaves the crop" in prepared[1].dropped_s
    for clip in clips:
        assert clip["landmarks"].min() > -3 and clip["landmarks"].max() < 67


def test_pictures_without_sound_at_the_end_are_left_out(prepared):
    clips = of(prepared, "ends_early_1.mp4")
    assert sum(clip.info.frames for clip in clips) in (19, 20, 21)
    assert prepared[1].dropped_s["no sound"] == pytest.approx(0.8, abs=0.1)


def test_clips_out_of_sync_are_left_out_and_listed(videos, tmp_path, monkeypatch):
    """Stands in for a trained expert: it finds anna's sound three frames late, and bert's perhaps."""

    class Gate:
        fingerprint, made_with, expert = "expert", {}, SimpleNamespace(hears="mel")
        out_of_sync = SyncGate.out_of_sync
        _limit = 1

        def __init__(self, bundle, limit):
            assert (bundle, limit) == ("expert", 1)

        def offset(self, clip):
            assert clip.images([0]).shape == (1, 64, 64, 3)
            return {"anna": Offset(3, 9.0), "bert": Offset(3, 1.0)}.get(clip.info.person)

    monkeypatch.setattr(prepare, "SyncGate", Gate)
    chosen = tmp_path / "list.tsv"
    rows = [f"{file}\t{person}\ttrain" for file, person in (("anna/good.mp4", "anna"), ("bert_1.mp4", "bert"))]
    chosen.write_text("\n".join(["file\tperson\tsplit", *rows]) + "\n")
    gated = settings(videos, tmp_path / "out", listing=str(chosen), sync_expert="expert")
    summary = prepare.prepare(gated)
    assert summary.clips == 1 and summary.dropped_s == {"out of sync": 3.0}
    assert summary.nothing == {"anna/good.mp4": "out of sync"}
    details = json.loads((tmp_path / "out" / "report.json").read_text())["details"]
    assert details[0]["offsets"]["anna/good.mp4@0.00"] == {"frames": 3, "sure": 9.0}
    assert "sound +3 frames" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(UserError, match=r"begun with other settings \(sync\)"):
        prepare.prepare(dataclasses.replace(gated, sync_expert=None))


def everything(output):
    found = RecordSet([output])
    return {clip.id: found[i]["jpeg"].tobytes() + found[i]["samples"].tobytes() for i, clip in enumerate(found.clips)}


def begin(chosen, first=""):
    """`prepare` in a process of its own, after the statements `first`."""
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); import fake_footage\n"
        "from ctjax import config; from ctjax.data import cutting, prepare\n"
        f"cutting._finder = fake_footage.ColourFinder\n{first}\n"
        "prepare.prepare(config.from_mapping(prepare.PrepareConfig, json.loads(sys.argv[2])))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code, str(HERE), json.dumps(config.to_mapping(chosen))]
    return subprocess.Popen(command, env=environment, stderr=-1, stdout=-1)


def test_killed_at_random_and_started_again_gives_the_same_records(videos, prepared, tmp_path):
    output = tmp_path / "records"
    for least in (2, 6):
        process = begin(settings(videos, output))
        end = time.monotonic() + 120
        while process.poll() is None and len(list(output.glob("work/*/*.json"))) < least and time.monotonic() < end:
            time.sleep(0.002)
        process.kill()
        process.communicate()
    process = begin(settings(videos, output))
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors.decode()
    assert everything(output) == everything(prepared[0])
    assert not (output / "work").exists()


def test_three_hosts_make_one_set(videos, prepared, tmp_path):
    output = tmp_path / "records"
    results = [prepare.prepare(settings(videos, output, shard=(i, 3))) for i in (1, 0, 2)]
    assert results[0] is None and results[1] is None and results[2] is not None
    assert everything(output) == everything(prepared[0])
    assert results[2].clips == prepared[1].clips


@pytest.fixture
def two(videos, tmp_path):
    """Settings for a set of two videos, one for each of two hosts."""
    (tmp_path / "two.tsv").write_text("file\tperson\tsplit\nanna/good.mp4\tanna\ttrain\nbert_1.mp4\tbert\ttest\n")
    return lambda *shard: settings(videos, tmp_path / "records", listing=str(tmp_path / "two.tsv"), shard=shard)


@pytest.mark.parametrize("moment", ["before it looks", "while it reads", "while it packs again"])
def test_another_host_finishes_the_set(two, tmp_path, monkeypatch, moment):
    output = tmp_path / "records"
    assert prepare.prepare(two(0, 2)) is None
    finished = []

    def other_host():
        if not finished:
            finished.append(True)
            with pytest.MonkeyPatch.context() as as_it_is:
                as_it_is.setattr(prepare, "_pack", pack)
                finished.append(prepare.prepare(two(0, 2)))

    pack, read_text = prepare._pack, pathlib.Path.read_text

    def read_part(path, *args, **kwargs):
        if path.name == "0000-of-0002.json":
            other_host()
        return read_text(path, *args, **kwargs)

    if moment == "while it reads":
        monkeypatch.setattr(pathlib.Path, "read_text", read_part)
    elif moment == "before it looks":
        monkeypatch.setattr(prepare, "_pack", lambda *given: (pack(*given), other_host()))
    else:
        with monkeypatch.context() as killed:
            killed.setattr(prepare, "_finish", lambda *given: None)
            assert prepare.prepare(two(1, 2)) is None
        monkeypatch.setattr(prepare, "_pack", lambda *given: (other_host(), pack(*given)))
    summary = prepare.prepare(two(1, 2))
    assert summary is not None and finished == [True, summary]
    assert {clip.id[:4] for clip in RecordSet([output]).clips} == {"anna", "bert"}
    assert not (output / "work").exists()


def test_what_a_kill_behind_the_manifest_leaves_is_removed(two, tmp_path, monkeypatch):
    output = tmp_path / "records"

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare.prepare(two(0, 1))
    assert (output / "work").exists()
    for folder in (output, output / "shards"):
        (folder / ".name.0123.partial").write_text("half")
    whole = everything(output)
    prepare.prepare(two(0, 1))
    assert not (output / "work").exists() and not list(output.rglob(".*"))
    assert everything(output) == whole


def test_a_disk_that_fills_while_packing(two, tmp_path):
    output = tmp_path / "records"
    limited = (
        "import resource; pack = prepare._pack\n"
        "def limited(*given):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); pack(*given)\n"
        "prepare._pack = limited"
    )
    _, errors = begin(two(0, 1), limited).communicate(timeout=240)
    last = errors.decode().splitlines()[-1]
    assert last.startswith("ctjax.types.UserError") and "00000.arrayrecord: cannot be written (" in last
    assert "File too large" in last and "run the same command again" in last
    assert not list((output / "shards").iterdir())
    assert prepare.prepare(two(0, 1)).clips == 3
    assert len(everything(output)) == 3


def test_a_disk_that_fills_while_cutting_is_no_fault_of_the_video(two, tmp_path):
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    _, errors = begin(two(0, 1), limited).communicate(timeout=240)
    last = errors.decode().splitlines()[-1]
    assert "0.piece: cannot be written (" in last and "run the same command again" in last
    assert prepare.prepare(two(0, 1)).clips == 3


def test_clips_of_a_video_are_cut_one_at_a_time(videos, tmp_path, monkeypatch):
    """Their pictures are what would fill the memory of whoever prepares an hour of video."""
    cut, held = cutting._piece, []

    def piece(*args):
        assert len(list(tmp_path.glob("*/*.piece"))) == len(held), "the one before is on the disk"
        held.append(cut(*args))
        return held[-1]

    monkeypatch.setattr(cutting, "_piece", piece)
    video = footage.Video("anna/good.mp4", "anna", "train")
    found = prepare._cut_one(videos, video, CUT, tmp_path)
    assert len(held) == 2
    for number, (stored, whole) in enumerate(zip(found.pieces, held, strict=True)):
        assert stored[:2] == whole[:2] and stored.thumbnails == whole.thumbnails
        assert all(np.array_equal(stored.arrays[name], whole.arrays[name]) for name in whole.arrays)
        assert len(list(tmp_path.glob("*/*.piece"))) == 2 - number
    assert not list(tmp_path.iterdir())


def test_a_worker_that_outlives_its_killed_parent_takes_nothing_from_the_next_run(two, monkeypatch):
    """It goes on with videos that the next run may have finished already."""
    settings, write, cut = two(0, 1), prepare._write_video, []

    def and_then_the_orphan(work, video, *args):
        write(work, video, *args)
        cut.append(prepare._cut_one(pathlib.Path(settings.source), video, settings.cut, work))

    monkeypatch.setattr(prepare, "_write_video", and_then_the_orphan)
    assert prepare.prepare(settings).clips == 3 and cut
    assert len(everything(settings.output)) == 3


def test_a_video_that_gives_no_clips_leaves_no_pieces(videos, tmp_path, monkeypatch):
    def breaks(root, video, cut):
        found = cut_video(root, video, cut)

        def pieces():
            yield next(iter(found.pieces))
            raise UserError(f"{root / video.file}: cut off")

        return found._replace(pieces=pieces())

    cut_video = prepare.cut_video
    monkeypatch.setattr(prepare, "cut_video", breaks)
    video = footage.Video("anna/good.mp4", "anna", "train")
    assert prepare._cut_one(videos, video, CUT, tmp_path) == "cut off"
    assert not list(tmp_path.iterdir())


def test_reading_in_other_processes_goes_on_past_broken_files(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a", "b", "c"):
        (folder / f"{name}.mp4").write_text("not a video")
    summary = prepare.prepare(settings(folder, tmp_path / "records", workers=2))
    assert set(summary.nothing) == {"a.mp4", "b.mp4", "c.mp4"} and summary.clips == 0
    with pytest.raises(UserError, match=r"the record set is empty; its report\.json says"):
        RecordSet([tmp_path / "records"])


def test_refusals(videos, prepared, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        prepare.prepare(settings(tmp_path / "nothing", tmp_path / "out"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no videos there"):
        prepare.prepare(settings(tmp_path / "empty", tmp_path / "out"))
    with pytest.raises(UserError, match=r"begun with other settings \(cut\)"):
        prepare.prepare(settings(videos, prepared[0], cut=CutConfig(size=32)))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write there"):
        prepare.prepare(settings(videos, tmp_path / "file" / "out"))
    with pytest.raises(ValueError, match="shard 3/3"):
        settings(videos, tmp_path, shard=(3, 3))
