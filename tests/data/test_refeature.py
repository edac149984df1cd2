"""Features anew: what cannot be is said in one line, before the work."""

import pathlib
import subprocess
import sys

import pytest

from ctjax.data.refeature import refeature
from ctjax.types import UserError

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import toy_records

ROOT = pathlib.Path(__file__).parent.parent.parent


def test_an_output_that_cannot_be_written_is_named(tmp_path):
    records = toy_records.write(tmp_path / "records", clips=2, persons=2, frames=10)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/output: cannot write there: Not a directory"):
        refeature(records, tmp_path / "file" / "output", hubert="untrained", renderer=None)


def test_a_share_of_records_is_refused(tmp_path):
    command = [
        sys.executable,
        ROOT / "prepare.py",
        f"--records={tmp_path}",
        f"--output={tmp_path / 'out'}",
    ]
    done = subprocess.run([*command, "--hubert=untrained", "--shard=1/4"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "prepare.py: error: --shard does not go with --records, where one host does all the clips: leave it out"
    )
