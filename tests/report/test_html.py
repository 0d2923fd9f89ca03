"""The page: well-formed, self-contained, small, its links lead somewhere, and the unknown is called unknown."""

from __future__ import annotations

import math
import re
import struct
import wave
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from insitu.base.metrics import Metric
from insitu.report.audio import MAX_BYTES as MAX_AUDIO
from insitu.report.audio import playback_copies
from insitu.report.figures.accuracy import confusion
from insitu.report.figures.chip import Span, coarse
from insitu.report.html import render
from insitu.report.result import AccuracyPoint, BitExact, LayerResult, ModelFacts, Result
from insitu.report.text import short_name

VOID = {"wbr", "meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Ids, links and the balance of the tags."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.sources, self.tags, self.words = [], [], [], [], set(), []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.note(attrs)

    def handle_startendtag(self, tag, attrs):
        self.note(attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def note(self, attrs):
        values = dict(attrs)
        self.ids += [values["id"]] if "id" in values else []
        self.links += [values["href"]] if "href" in values else []
        self.sources += [values["src"]] if "src" in values else []


def check(text):
    page = Page(text)
    assert len(set(page.ids)) == len(page.ids)
    assert all(link[0] == "#" and link[1:] in page.ids for link in page.links), page.links
    assert all(source.startswith("data:audio/wav;base64,") for source in page.sources)
    assert page.tags.isdisjoint({"script", "link", "img", "iframe", "object"})
    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[^\"]*", "", text))
    assert len(text.encode()) < 500_000
    words = " ".join(page.words)
    assert not re.search(r"\bnan\b|\binf\b|\bNone\b|\bNaN\b", words)
    return words


@pytest.mark.parametrize("name", ["keyword", "broken", "infeasible"])
def test_page_is_whole_and_stands_alone(name, request):
    result = request.getfixturevalue(name)
    text = render(result)
    check(text)
    assert text == render(result)


def test_first_screen_answers(keyword):
    text = render(keyword)
    head = text[: text.index('<section id="accuracy">')]
    for words in (
        "Accuracy on the chip",
        "92.6\u00a0%",
        "4.63\u00a0ms",
        "9.36\u00a0µJ",
        "Does it fit?",
        "Same numbers?",
    ):
        assert words in head
    for anchor in ("origin-accuracy-chip-mean", "origin-latency-s", "origin-energy-j", "origin-bit-exact"):
        assert f'href="#{anchor}"' in head


def test_synthetic_stands_wherever_accuracy_is_shown(keyword):
    text = render(keyword)
    tile = text[text.index("Accuracy on the chip") :]
    assert "synthetic" in text[text.index('class="verdict"') :][:300]
    assert "synthetic" in tile[: tile.index("</div>")]
    for key in ("accuracy", "confusion"):
        figure = text[text.index(f'id="figure-{key}"') :]
        assert "synthetic" in figure[: figure.index("</figure>")]
    rows = re.findall(r'<tr id="origin-accuracy.*?</tr>', text)
    assert len(rows) == 5
    assert all("synthetic" in row for row in rows)
    listen = text[text.index('id="listen"') :]
    assert "synthetic" in listen[: listen.index("<table")]
    assert "synthetic" not in render(replace(keyword, data_note="", extra={}))


def test_every_figure_has_title_unit_and_origin(keyword):
    figures = re.findall(r"<figure.*?</figure>", render(keyword), flags=re.S)
    assert len(figures) == 10
    for figure in figures:
        assert re.search(r"<h3>[^<]+</h3>", figure)
        assert re.search(r'<p class="unit">[^<]+</p>', figure)
        assert re.search(r'class="tag (measured|modelled|assumed)"', figure)
        assert re.search(r'<a href="#[^"]+">Origin</a>', figure)
        assert re.search(r'<svg class="fig" role="img" aria-label="[^"]+"', figure)


def test_broken_layer_is_named_in_words_and_in_the_figure(broken):
    text = render(broken)
    words = check(text)
    assert "Layer block2/pointwise (Conv) breaks the network" in words
    assert words.count("breaks here") == 2


def test_infeasible_page_says_what_fills_it_and_the_ways_out(infeasible):
    words = check(render(infeasible))
    for part in ("does not fit", "11,173,962 cells", "1,835,008 cells", "layer4/conv2", "--max-chips 7"):
        assert part in words


def test_nothing_known_is_a_page_too():
    text = render(Result(ModelFacts("m", None, None), "c", 0, "random", metrics={}))
    assert check(text).count("not known") >= 4
    unknown = {n: Metric(n, v, "s", "assumed") for n, v in (("latency_s", math.nan), ("energy_j", None))}
    layers = (
        LayerResult("a", "Conv", sqnr_db=math.inf, sqnr_local_db=math.nan, latency_s=math.inf),
        LayerResult("b", "X"),
    )
    over = (AccuracyPoint(0.0, ()), AccuracyPoint(60.0, (0.5,)))
    check(render(Result(ModelFacts("m", 0, 0), "c", 0, "x", metrics=unknown, layers=layers, accuracy_over=over)))


def test_what_users_name_is_escaped(keyword):
    evil = '<script>alert("x")</script>&amp;'
    layers = (replace(keyword.layers[0], name=evil), *keyword.layers[1:])
    extra = {**keyword.extra, "answers": [{"file": evil, "truth": evil, "float": evil, "chip": "a", "votes": [evil]}]}
    result = replace(keyword, model=ModelFacts(evil, 1, 1), layers=layers, data_note=evil, extra=extra)
    text = render(result)
    assert "<script" not in text
    check(text)


def test_a_very_large_run_stays_small(keyword, tmp_path):
    name = "/encoder/layers.{}/attention/self/a-rather-long-name-of-an-operator/MatMul"
    layers = tuple(
        LayerResult(name.format(i), "MatMul", "core 3", 30.0, 31.0, 0.99, 10, 1e-4, 1e-6, "adc") for i in range(3000)
    )
    spans = [
        {"unit": f"unit {i % 90}", "label": layers[i % 3000].name, "start_s": i * 1e-5, "end_s": i * 2e-5}
        for i in range(9000)
    ]
    plan = [
        {"macro": m, "label": layers[m * 4 + k].name, "x": 8 * k, "y": 0, "w": 8, "h": 9}
        for m in range(500)
        for k in range(4)
    ]
    constants = [{"name": f"c{i}", "value": i, "unit": "J", "source": "x" * 80, "kind": "assumed"} for i in range(900)]
    extra = {
        **keyword.extra,
        "timeline": spans,
        "floorplan": plan,
        "constants": constants,
        "macros": {"columns": 64, "rows": 64},
    }
    paths = recordings(tmp_path, 10)
    extra["answers"] = [
        {"file": path.name, "truth": "a", "float": "a", "chip": "b", "votes": ["b"] * 8} for path in paths
    ]
    clips = playback_copies(paths)
    text = render(replace(keyword, layers=layers, extra=extra), audio=clips)
    check(text)
    assert text.count("<audio") == 10


def test_mismatches_are_the_first_thing_said(keyword):
    first = {"layer": "conv1", "index": [0, 3], "interpreter": 5, "simulator": 6}
    words = check(render(replace(keyword, bit_exact=BitExact(100_000, 2, 0, first))))
    assert "2 integers differ" in words
    assert "layer conv1" in words


def recordings(folder, count, seconds=1.0):
    paths = []
    for i in range(count):
        path = folder / f"{i}.wav"
        samples = [int(9000 * math.sin(0.05 * (i + 1) * t)) for t in range(int(16_000 * seconds))]
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(struct.pack(f"<{len(samples)}h", *samples))
        paths.append(path)
    return paths


def test_ten_seconds_of_audio_fit_and_no_more(tmp_path):
    clips = playback_copies(recordings(tmp_path, 14))
    assert len(clips) == 10
    assert sum(len(clip.uri) for clip in clips) <= MAX_AUDIO
    assert clips == playback_copies(recordings(tmp_path, 14))


def test_recordings_play_beside_their_answers(keyword, tmp_path):
    paths = recordings(tmp_path, 2)
    rows = [
        {"file": p.name, "truth": "one", "float": "one", "chip": "two", "votes": ["two", "two", "one"]} for p in paths
    ]
    text = render(replace(keyword, extra={"answers": rows}), audio=playback_copies(paths))
    check(text)
    assert text.count("<audio controls") == 2


def test_a_timeline_of_too_many_spans_is_sampled_to_its_end():
    spans = [Span(f"u{i % 3}", f"l{i // 50}", i * 1.0, i + 2.5) for i in range(1000)]
    drawn = coarse(spans, ["u0", "u1", "u2"], limit=90)
    assert len(drawn) <= 90
    assert {span.unit for span in drawn} == {"u0", "u1", "u2"}
    assert max(span.end for span in drawn) == pytest.approx(1001.5)
    for unit in ("u0", "u1", "u2"):
        mine = [span for span in drawn if span.unit == unit]
        assert all(a.end <= b.start + 1e-9 for a, b in pairwise(mine))


def test_short_names_keep_what_tells_layers_apart():
    assert short_name("/encoder/layers.3/self/MatMul", 15) == "e/l3/s/MatMul"
    assert short_name("block1/depthwise", 22) == "block1/depthwise"
    assert short_name("a_very_long_name_without_parts", 15) == "a_very_…t_parts"
    assert len(short_name("/a/b/a_very_long_name_without_parts", 15)) == 15


def test_confusion_rows_are_percent_of_their_row(keyword):
    figure = confusion(replace(keyword, extra={"confusion": {"labels": ["yes", "no"], "counts": [[3, 1], [0, 0]]}}))
    assert figure is not None
    assert ">75<" in figure.svg
    assert ">25<" in figure.svg


def test_without_labels_fidelity_is_drawn_over_chips_and_time(keyword):
    """`sqnr_over` is what users without labels look at: a dot a chip at each time, hollow without calibration."""
    points = (AccuracyPoint(0.0, (31.0, 32.5, 30.25)), AccuracyPoint(86400.0, (24.0, math.inf, 22.0)))
    raw = [{"time_s": 0.0, "values": [12.0, 13.0, 11.0]}]
    result = replace(keyword, accuracy_over=(), sqnr_over=points, extra={"sqnr_uncalibrated": raw})
    page = render(result)
    words = check(page)
    assert "How near chips come to the ideal one" in words
    assert [page.count(f"chip {i}: ") for i in range(3)] == [3, 2, 3]
    assert "chip 2: 22\u00a0dB" in page
    assert "without the chip's calibration" in words.replace("&#x27;", "'")
    assert "How near chips come" not in check(render(keyword))
    assert "How near chips come" not in check(render(replace(result, sqnr_over=(), extra={})))
