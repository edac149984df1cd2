"""Tables, files and charts made from a small evaluation."""

import csv
import io
import json
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from ctjax.evaluate import chart, report, sweep, table
from ctjax.evaluate.results import ClipScores, Evaluation, Failure, Metric, Row, Scores

METRICS = [
    Metric("ssim", "SSIM, whole frame", "", "higher", "how alike <they> are", 4),
    Metric("psnr", "PSNR", "dB", "higher", "in dB", 2),
    Metric("fid", "FID, all frames", "", "lower", "of the sets", 2),
    Metric("lpips", "LPIPS", "", "lower", "nobody has it"),
]


def _clip(name, row, **values):
    curves = {"aperture": np.array([0.1, np.nan, 0.3, 0.2]), "silent": np.array([0, 1, 1, 0])}
    curves["offset_tracked"] = np.abs(np.arange(-15.0, 16.0))
    notes = ("one frame longer",) if name == "日本" else ()
    return ClipScores(name, f"/{row}/{name}.mp4", f"/reference/{name}.mp4", Scores(values, curves, notes))


@pytest.fixture
def evaluation():
    generated = Row("generated", [_clip("a|b", "g", ssim=0.5, psnr=20.0), _clip("日本", "g", ssim=0.7, psnr=math.nan)])
    generated.whole["fid"] = 12.5
    generated.notes.append("few frames")
    reference = Row(
        "reference", [_clip("a|b", "r", ssim=1.0, psnr=math.inf), _clip("日本", "r", ssim=1.0, psnr=math.inf)]
    )
    failures = [Failure("generated", "c", "cut off")]
    return Evaluation(
        {"fps": 25.0, "window": "w"}, METRICS, [generated, reference], failures, {"LSE": "needs --sync_bundle"}
    )


def test_means_have_standard_error_and_count(evaluation):
    generated, reference = evaluation.rows
    summary = generated.summary("ssim")
    assert (summary.mean, summary.count) == (pytest.approx(0.6), 2)
    assert summary.standard_error == pytest.approx(np.std([0.5, 0.7], ddof=1) / np.sqrt(2))
    assert generated.summary("psnr")[::2] == (20.0, 1)
    assert math.isinf(reference.summary("psnr").mean)
    assert generated.summary("fid").mean == 12.5
    assert generated.summary("lpips") is None
    assert [m.key for m in evaluation.shown()] == ["ssim", "psnr", "fid"]


def test_the_terminal_shows_everything(evaluation):
    text = table.terminal(evaluation, width=60)
    assert re.search(r"SSIM, whole frame +higher is better +0\.6000 ± 0\.1000 +1\.0000 ± 0\.0000", text)
    assert re.search(r"PSNR \[dB\] .*20\.00 \(1\) +inf", text)
    assert "LSE: needs --sync_bundle" in text and "generated/c: cut off" in text
    assert "generated/日本, reference/日本: one frame longer" in text and "  generated: few frames" in text
    assert "generated, clip by clip" in text and "reference, clip by clip" not in text


def test_columns_line_up_for_wide_letters(evaluation):
    lines = table.terminal(evaluation, width=200).split("generated, clip by clip\n")[1].splitlines()
    assert lines[0].index("ssim") == lines[3].index("0.7000") + 2  # two letters that take two cells each


def test_a_narrow_terminal_gets_several_blocks(evaluation):
    blocks = table.terminal(evaluation, width=16).split("clip by clip\n")[1]
    assert blocks.count("a|b") == 2


def test_markdown_escapes_and_defines(evaluation):
    text = table.markdown(evaluation)
    assert "a\\|b" in text and "how alike <they> are" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows[:5]} == {5}


def test_csv_has_a_line_per_clip_and_exact_values(evaluation):
    lines = list(csv.DictReader(io.StringIO(table.clips_csv(evaluation))))
    assert [line["clip"] for line in lines] == ["a|b", "日本"] * 2
    assert lines[0]["ssim"] == "0.5" and lines[1]["psnr"] == "" and lines[2]["psnr"] == "inf"
    means = {(line["row"], line["metric"]): line for line in csv.DictReader(io.StringIO(table.summary_csv(evaluation)))}
    assert means["generated", "fid"]["mean"] == "12.5" and means["generated", "fid"]["standard_error"] == ""


def test_json_is_strict(evaluation):
    content = json.loads(table.as_json(evaluation), parse_constant=lambda c: pytest.fail(f"not JSON: {c}"))
    assert content["rows"][1]["means"]["psnr"]["mean"] == "inf"
    assert content["rows"][0]["clips"][1]["values"]["psnr"] is None
    assert content["rows"][0]["notes"] == ["few frames"]
    assert content["failures"] == [{"row": "generated", "clip": "c", "reason": "cut off"}]


def test_the_page_stands_alone(evaluation):
    page = report.page(evaluation, {"/g/a|b.mp4": "media/g 1.mp4", "/r/a|b.mp4": "media/r.mp4"})
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", page)
    assert page.count("<video") == 2 and page.count("<section>") == 2
    assert "how alike &lt;they&gt; are" in page and "needs --sync_bundle" in page and "cut off" in page
    assert page.index("<table") < page.index("<section>")
    charts = re.findall(r"<svg.*?</svg>", page)
    assert len(charts) == 4  # aperture and offset of each clip
    for svg in charts:
        ElementTree.fromstring(svg)


def test_a_broken_line_has_gaps():
    svg = chart.line_chart("t", [chart.Series("s", range(5), [0, 1, math.nan, 1, 0])], x_label="x")
    assert len(re.findall(r'fill="none"', svg)) == 2


@pytest.mark.parametrize("values", [[], [math.nan], [2.0, 2.0], [math.inf, 1.0], [1e-12, 2e-12]])
def test_charts_of_odd_series_are_well_formed(values):
    svg = chart.line_chart("<&>", [chart.Series("s", range(len(values)), values)], x_label="x", shaded=[(0, 1)])
    ElementTree.fromstring(svg)
    assert "nan" not in svg and "inf" not in svg


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-15, 15), (0.0123, 0.0345), (990, 1010)])
def test_ticks_are_round_and_inside(low, high):
    found = chart.ticks(low, high)
    assert 3 <= len(found) <= 12
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)


def test_players_of_odd_names_and_clips_without_one(evaluation):
    media = {"/g/a|b.mp4": "media/50% #1?/caf\udce9 & co.mp4"}
    page = report.page(evaluation, media, (), ["generated/日本: <cut> off"])
    assert 'src="media/50%25%20%231%3F/caf%E9%20%26%20co.mp4"' in page
    assert "<h3>No player</h3><ul><li>generated/日本: &lt;cut&gt; off</li></ul>" in page


def test_every_alpha_has_its_own_row():
    alphas = (0.0, 0.5, 1.0, 0.1, 0.1 + 1e-9, 1e-7)
    assert [sweep.row_name(alpha) for alpha in alphas[:3]] == ["alpha=0", "alpha=0.5", "alpha=1"]
    assert len({sweep.row_name(alpha) for alpha in alphas}) == len(alphas)
