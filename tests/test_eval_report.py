"""The report: whole, escaped, asking nobody for anything, and right in what it draws."""

import base64
import io
import json
import random
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
import sets
from PIL import Image

from retriever import load_encoder
from retriever.cli import main
from retriever.evaluation.datasets import load
from retriever.evaluation.gallery import gallery
from retriever.evaluation.plots import Panel, Point, drawing, front, pareto
from retriever.evaluation.published import published
from retriever.evaluation.report import page
from retriever.evaluation.results import document
from retriever.evaluation.run import Result, System, run

VOID = {"meta", "img", "br", "path", "circle", "polyline"}


class Parsed(HTMLParser):
    """Tags that are closed as they were opened, and every attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.attributes, self.tags, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.words.append(text)


def made(dataset="d", quality=0.5, languages=("en",), funnel=None, failures=(), smoke=False, **system):
    rng = random.Random(f"{dataset}{quality}{system}")
    values = {f"q{n}": min(1.0, max(0.0, rng.gauss(quality, 0.2))) for n in range(30)}
    spoken = {query: languages[n % len(languages)] for n, query in enumerate(values)}
    cost = {"tokens_a_page": 300.0, "bytes_a_page": 50_000.0 * system.get("cost", 1), "stage": "pooled"}
    cost["ms_a_query_cpu"] = {"p50": 20.0 * system.pop("cost", 1), "p95": 30.0}
    result = Result(System("e", **system), dataset, smoke, 99, {"ndcg@5": values}, spoken, 2, {}, cost, funnel or {})
    result.failures = list(failures)
    return result


def assert_asks_nobody(text: str) -> Parsed:
    parsed = Parsed(text)
    assert not {"script", "link", "iframe", "object", "form", "base"} & set(parsed.tags)
    for _, name, value in parsed.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "srcset", "action", "data", "poster"):
            assert value.startswith("data:image/jpeg;base64,")
    assert "url(" not in text and "@import" not in text
    assert "default-src 'none'" in text
    return parsed


def test_a_report_of_many_systems_and_data_sets_is_whole_and_asks_nobody():
    results = [
        made(
            dataset,
            quality,
            ("en", "de"),
            {"first stage, 150 pages": 0.9, "in the first 5": 0.7},
            codec=codec,
            cost=cost,
        )
        for dataset in ("one", "two")
        for codec, quality, cost in (("fp16", 0.6, 2), ("int8", 0.6, 1), ("binary", 0.3, 0.2))
    ]
    parsed = assert_asks_nobody(page(document(results, ["ndcg@5"], ["octavo", "eval", "my set"]), {}))
    text = " ".join(parsed.words)
    assert parsed.tags.count("svg") == 2 and parsed.tags.count("circle") == 6
    for said in ("Mean", "By language", "Where pages are lost", "octavo eval 'my set'", "4 queries to which no page"):
        assert said in text, said
    assert text.count("0.900") == 6


def test_what_came_from_a_data_set_is_escaped():
    hostile = '<script>alert(1)</script>"\u202e'
    miss = {"query": "q", "text": hostile, "lang": '"><b>', "place": None}
    side = {"page": hostile, "picture": "", "text": hostile}
    results = [made(hostile, 0.5, (hostile, "en"))]
    text = page(document(results, ["ndcg@5"], ["octavo", hostile]), {hostile: [miss | {"right": side, "ours": side}]})
    parsed = assert_asks_nobody(text)
    assert "\u202e" not in text and "<script" not in text
    assert any("<script>alert(1)</script>" in word for word in parsed.words)


def test_a_smoke_test_says_so_and_one_system_is_not_plotted():
    text = page(document([made(smoke=True)], ["ndcg@5"]), {})
    assert "A smoke test" in text and "<svg" not in text
    assert "A smoke test" not in page(document([made()], ["ndcg@5"]), {})


def test_documents_that_were_not_read_are_named():
    result = made()
    result.cost["failed"] = ["/x/a.pdf: damaged: no pages"]
    assert "/x/a.pdf: damaged: no pages" in page(document([result], ["ndcg@5"]), {})


def test_the_front_is_what_nothing_beats():
    rng = random.Random(0)
    for _ in range(200):
        points = [Point(str(n), rng.randint(1, 6), rng.randint(1, 6) / 6, 0, 1, "k") for n in range(rng.randint(1, 9))]
        best = front(points)
        for point in points:
            beaten = any(o.cost <= point.cost and o.quality >= point.quality and o[1:3] != point[1:3] for o in points)
            assert ((point.cost, point.quality) in {(p.cost, p.quality) for p in best}) != beaten


def test_points_are_drawn_where_they_belong():
    points = [Point("cheap", 10, 0.5, 0.4, 0.6, "a"), Point("dear", 1000, 0.9, 0.8, 1.0, "b")]
    drawn = pareto(Panel(points, "a < b", "cost", "ms"), "quality", ["a", "b"])
    places = [(float(x), float(y)) for x, y in re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', drawn)]
    assert places[0][0] < places[1][0] and places[0][1] > places[1][1]
    assert "a &lt; b" in drawn and "dear: 0.900 (0.800 to 1.000), 1k ms" in drawn


def test_a_drawing_stands_on_its_own():
    hybrid = [Point(f"h{n}", 10 * n, n / 10, n / 10, n / 10, "int8") for n in (3, 2, 1)]
    visual = [point._replace(kind="binary", ring=True, quality=point.quality / 2) for point in hybrid]
    panels = [Panel([*hybrid, *visual], title, "bytes < kB", "bytes") for title in ("one", "two & three")]
    drawn = ElementTree.fromstring(drawing(panels, "nDCG@5"))
    space = "{http://www.w3.org/2000/svg}"
    said = [text.text for text in drawn.iter(f"{space}text")]
    assert {"one", "two & three", "int8", "binary", "visual alone", "bytes < kB (bytes)"} <= set(said)
    circles = [circle.get("class") for circle in drawn.iter(f"{space}circle")]
    assert circles[:3] == ["k0", "k1", "ring k5"] and circles[3:].count("ring k1") == circles[3:].count("k0") == 6
    assert "var(--k1)" in drawn.find(f"{space}style").text and "@import" not in drawing(panels, "nDCG@5")


def test_a_benchmark_s_mean_stands_beside_the_published_one_where_all_of_it_was_run():
    found = document([made("one", 0.4), made("two", 0.6)], ["ndcg@5"]) | {"sources": ["ViDoRe(v2)"], "skipped": {}}
    text = page(found, {})
    assert "Beside published figures" in text and "colqwen2.5-v0.2" in text and "0.601" in text
    assert "Beside published" not in page(found | {"skipped": {"three": "not there"}}, {})
    assert "Beside published" not in page(found | {"sources": ["one", "two"]}, {})


def test_what_each_step_leaves_is_a_row_a_system():
    steps = {"first stage, 150 pages": 0.91, "in the first 10": 0.82}
    results = [made(codec="int8", funnel=steps), made(codec="int4", funnel={"with words": 0.93} | steps), made()]
    parsed = Parsed(page(document(results, ["ndcg@5"]), {}))
    words = parsed.words[parsed.words.index("Where pages are lost") :]
    order = [words.index(step) for step in ("first stage, 150 pages", "with words", "in the first 10")]
    assert order == sorted(order) and words.count("0.910") == words.count("0.820") == 2 and words.count("0.930") == 1


@pytest.mark.parametrize(
    "name", ["mteb/docvqa_test_subsampled_beir", "docvqa_test_subsampled_beir", "VidoreDocVQARetrieval"]
)
def test_published_figures_are_found_by_every_name_of_a_data_set(name):
    found = {figure["model"]: figure["value"] for figure in published(name, "ndcg@5")}
    assert found == {"jina-embeddings-v4, single vector": 0.5054, "jina-embeddings-v4, token vectors": 0.5998}
    assert published(name, "ndcg@10") == [] and published("piaf_pages", "ndcg@5") == []
    text = page(document([made(name)], ["ndcg@5"]), {})
    assert "0.600" in text and "arXiv:2506.18902" in text


def test_the_gallery_shows_the_right_page_and_ours_with_what_was_seen(tmp_path):
    folder = sets.plain(tmp_path / "mine")
    lines = (folder / "qrels.tsv").read_text().replace("q-forest\tforest", "q-forest\tbakery")
    (folder / "qrels.tsv").write_text(lines)
    (questions,) = load(str(folder))
    encoder = load_encoder()
    (result,) = run(questions, encoder, tmp_path / "cache")
    (miss,) = gallery(questions, encoder, tmp_path / "cache", result)
    assert (miss["query"], miss["right"]["page"], miss["ours"]["page"]) == ("q-forest", "bakery.png#0", "forest.png#0")
    assert miss["place"] in (2, 3, 4) and "trees cover" in miss["ours"]["text"]
    drawn = Image.open(io.BytesIO(base64.b64decode(miss["ours"]["picture"].partition(",")[2])))
    assert drawn.format == "JPEG" and max(drawn.size) <= 720
    colours = np.asarray(drawn.convert("RGB"), np.int16)
    assert (np.ptp(colours, axis=2) > 60).sum() > 200  # heat on a page of black and white
    assert_asks_nobody(page(document([result], ["ndcg@5"]), {"mine": [miss]}))


def test_the_command_writes_report_values_and_run_files(tmp_path):
    folder = sets.plain(tmp_path / "mine")
    args = ["eval", str(folder), "--report", str(tmp_path / "out"), "--cache", str(tmp_path / "cache"), "--json"]
    assert main(args) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["eval.json", "report.html", "runs"]
    assert_asks_nobody((tmp_path / "out" / "report.html").read_text("utf-8"))
    assert json.loads((tmp_path / "out" / "eval.json").read_text())["format"] == 1
