"""The report: of very many clips the sheet shows some, and says so."""

import base64
import re

import pytest

from ctjax.data import prepare_report
from ctjax.data.prepare_report import SHEET_CLIPS


def video(number, clips):
    infos = [{"id": f"{number}@{i}", "person": "p", "split": "train", "frames": 50} for i in range(clips)]
    strip = base64.b64encode(b"jpeg").decode()
    return {"video": f"{number}.mp4", "reason": "", "drops": [], "clips": infos, "thumbnails": [strip] * clips}


@pytest.mark.parametrize("count", [3, SHEET_CLIPS, SHEET_CLIPS + 1, 4 * SHEET_CLIPS + 3])
def test_the_sheet_stays_small(tmp_path, count):
    summary = prepare_report.write(tmp_path, [video(0, count // 3), video(1, count - count // 3)])
    assert summary.clips == count and prepare_report.read(tmp_path) == summary
    page = (tmp_path / "report.html").read_text()
    captions = re.findall(r"<figcaption>(\d)@(\d+) ", page)
    places = [int(i) + (count // 3) * int(number) for number, i in captions]
    assert len(places) == min(count, SHEET_CLIPS) and places[0] == 0
    gaps = {after - before for before, after in zip(places, [*places[1:], count], strict=True)}
    assert max(gaps) - min(gaps) <= 1
    hidden = count - len(places)
    assert (f"{SHEET_CLIPS} clips, evenly chosen; {hidden} more are" in page) == (hidden > 0)
    assert ("evenly chosen" in page) == (hidden > 0)
