"""A result as one HTML file that asks nobody for anything: figures, intervals, costs, what was missed, how to redo it.

Everything is text, inline SVG and inline JPEG; a content policy in the page forbids the rest. Whatever came out of a
document or a data set is escaped. Not here: the figures (results), the plot (plots), the pictures (gallery).
"""

from __future__ import annotations

import hashlib
import html
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retriever.evaluation.plots import Panel, Point, pareto
from retriever.evaluation.published import published
from retriever.evaluation.results import Row, systems, table
from retriever.sheet import text as _text

_HERE = Path(__file__).parent
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(document: Mapping[str, Any], galleries: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The report of a result file. galleries: data set -> what `gallery` made of it."""
    measure, results = document["measures"][0], document["results"]
    names = list(dict.fromkeys(result["dataset"] for result in results))
    title = f"{measure} on {names[0]}" if len(names) == 1 else f"{measure} on {len(names)} data sets"
    title = title if names else "What an encoder is worth"
    parts = [
        f"<h1>{_text(title)}</h1>",
        f'<p class="quiet">{_text(", ".join(names))}. Measured {_text(document["date"][:10])} by Octavo '
        f"{_text(document['versions'].get('octavo', ''))}.</p>",
        _smoke(results),
        _figures(document, measure) if results else "",
        _tasks(document.get("tasks", ()), document.get("skipped", {})),
        _published(document, names, measure),
        _languages(table(results, measure), measure),
        _plots(results, measure),
        _costs(results) if results else "",
        _funnels(results),
        *(_gallery(name, shown) for name, shown in galleries.items() if shown),
        _again(document),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>\n{(_HERE / 'report.css').read_text('utf-8')}</style>\n</head>\n"
        f"<body>\n<main>\n{chr(10).join(filter(None, parts))}\n</main>\n</body>\n</html>\n"
    )


def _table(caption: str, head: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], words: int = 1) -> str:
    """rows: (class, cells that are HTML already); the first `words` columns are words."""
    heads = "".join(f'<th scope="col"{" class=words" if n < words else ""}>{cell}</th>' for n, cell in enumerate(head))
    body = []
    for kind, cells in rows:
        first, *rest = cells
        shown = "".join(f"<td{' class=words' if n < words - 1 else ''}>{cell}</td>" for n, cell in enumerate(rest))
        body.append(f'<tr class="{kind}"><th scope="row">{first}</th>{shown}</tr>')
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{caption}"><table>'
        f"<caption>{caption}</caption><thead><tr>{heads}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _smoke(results: Sequence[Mapping[str, Any]]) -> str:
    made = sorted({result["dataset"] for result in results if result["smoke"]})
    if not made:
        return ""
    return (
        f'<p class="note"><b>A smoke test.</b> The questions for {_text(", ".join(made))} are runs of words taken from '
        "the pages themselves. They show that pages are read, stored and found, and rank settings; what people ask is "
        "harder.</p>"
    )


def _figures(document: Mapping[str, Any], measure: str) -> str:
    """A row a system, a column a measure: over all data sets, or the one there is."""
    results = document["results"]
    names = list(dict.fromkeys(result["dataset"] for result in results))
    wanted = [m for m in document["measures"] if all(m in result["values"] for result in results)]
    if len(names) == 1:
        columns = {m: {row["system"]: row for row in table(results, m) if not row["language"]} for m in wanted[:6]}
        several = len({language for result in results for language in result["languages"].values()}) > 1
        caption = f"{'Means of languages' if several else 'Means of queries'}, with 95 % bootstrap intervals"
    else:
        rows = [row for row in table(results, measure) if not row["language"]]
        columns = {n: {row["system"]: row for row in rows if row["dataset"] == n} for n in [*names, ""]}
        caption = f"{_text(measure)} by data set, with 95 % bootstrap intervals; the best of each column is bold"
    body = []
    for system in systems(results):
        cells = [_figure(found.get(system), found.values()) for found in columns.values()]
        body.append(("", [_text(system), *cells]))
    head = ["System", *(_text(name) if name else "Mean" for name in columns)]
    return "<h2>How well pages are found</h2>" + _table(caption, head, body)


def _figure(row: Row | None, column: Any) -> str:
    if row is None:
        return "–"
    best = len(list(column)) > 1 and row["mean"] >= max(other["mean"] for other in column) - 1e-12
    figure = f'<span class="best">{row["mean"]:.3f}</span>' if best else f"{row['mean']:.3f}"
    return f"{figure}<small>{row['low']:.3f} to {row['high']:.3f}</small>"


def _languages(rows: Sequence[Row], measure: str) -> str:
    several = [row for row in rows if row["language"]]
    if not several:
        return ""
    labels = list(dict.fromkeys(row["system"] for row in rows))
    body = []
    for dataset in dict.fromkeys(row["dataset"] for row in several):
        for language in ["", *dict.fromkeys(row["language"] for row in several if row["dataset"] == dataset)]:
            some = {r["system"]: r for r in rows if (r["dataset"], r["language"]) == (dataset, language)}
            cells = [_figure(some.get(label), some.values()) for label in labels]
            asked = str(next(iter(some.values()))["queries"])
            name = _text(language) if language else f"{_text(dataset)} <small>mean of languages</small>"
            body.append(("language" if language else "whole", [name, asked, *cells]))
    return "<h2>By language</h2>" + _table(_text(measure), ["", "Queries", *map(_text, labels)], body)


def _tasks(tasks: Sequence[Mapping[str, Any]], skipped: Mapping[str, str]) -> str:
    """What is no search (pairs, and tasks that mteb's own runner measured), and what could not be had."""
    body = []
    for task in tasks:
        value = "–" if task["value"] is None else f"{task['value']:.3f}"
        body.append(("", [_text(task["task"]), _text(task["type"]), _text(task["main_score"]), value]))
    table = _table("Measured on single vectors", ["Task", "Kind", "Measure", "Value"], body, words=3) if tasks else ""
    lost = "".join(f"<li>{_text(name)}: {_text(reason)}</li>" for name, reason in skipped.items())
    note = f'<p class="note">Not measured:</p><ul>{lost}</ul>' if lost else ""
    return f"<h2>Beside search</h2>{table}{note}" if tasks or skipped else ""


def _published(document: Mapping[str, Any], names: Sequence[str], measure: str) -> str:
    """Others' figures for each data set, and for a benchmark that was run as a whole."""
    rows = [row for row in table(document["results"], measure) if not row["language"]]
    ours = {name: [row for row in rows if row["dataset"] == name] for name in names}
    if len(names) > 1 and len(document.get("sources", ())) == 1 and not document.get("skipped"):
        ours[document["sources"][0]] = [row for row in rows if not row["dataset"]]
    body: list[tuple[str, list[str]]] = []
    for name, some in ours.items():
        figures = published(name, measure)
        cells = [[row["system"], row["mean"], "here"] for row in some if figures]
        body += [("", [_text(name), _text(system), f"{value:.3f}", source]) for system, value, source in cells]
        cells = [[f["model"], f["value"], f"{f['title']} ({f['date']})"] for f in figures]
        body += [
            ("published", [_text(name), _text(model), f"{value:.3f}", _text(source)]) for model, value, source in cells
        ]
    if not body:
        return ""
    caption = "As published, not measured here; rendering, splits and query prompts may differ"
    head = ["Data set", "System", _text(measure), "Source"]
    return "<h2>Beside published figures</h2>" + _table(caption, head, body, words=2)


def _plots(results: Sequence[Mapping[str, Any]], measure: str) -> str:
    """Quality against bytes and time, over the means of all data sets, where there are several systems to compare."""
    rows = table(results, measure)
    many = len({row["dataset"] for row in rows}) > 1
    means = {row["system"]: row for row in rows if not row["language"] and (not row["dataset"] or not many)}
    by_bytes, by_time = [], []
    for label, of_system in systems(results).items():
        system, row = of_system[0]["system"], means[label]
        size, time = _mean_cost(of_system, "bytes_a_page"), _mean_cost(of_system, "ms_a_query_cpu")
        kind = system["codec"] if _seen(system) else "BM25"
        point = Point(label, size, row["mean"], row["low"], row["high"], kind, system["mode"] == "visual")
        by_bytes += [point] * bool(size and _seen(system))
        by_time += [point._replace(cost=time)] * bool(time)
    kinds = sorted(dict.fromkeys(point.kind for point in by_time), key="BM25".__eq__)
    drawn = [
        pareto(Panel(points, f"{measure} against {cost}", cost, unit), measure, kinds)
        for points, cost, unit in (
            (by_bytes, "what a page takes on disk", "bytes"),
            (by_time, "what a query takes of one core", "ms, median"),
        )
        if len({round(point.cost, 3) for point in points}) > 1
    ]
    if not drawn:
        return ""
    told = (
        "A dashed line joins the systems that no other is both cheaper and better than; whiskers are their 95 % "
        "intervals. Point at a dot to see which system it is."
    )
    return f'<h2>What quality costs</h2><p class="quiet">{told}</p><div class="plots">{"".join(drawn)}</div>'


def _seen(system: Mapping[str, Any]) -> bool:
    """Whether vectors are looked at; BM25 alone knows no codec."""
    return system["mode"] in ("hybrid", "visual")


def _mean_cost(of_system: Sequence[Mapping[str, Any]], name: str) -> float:
    values = [cost["p50"] if isinstance(cost := result["cost"].get(name, 0), dict) else cost for result in of_system]
    return float(sum(values) / len(values))


def _costs(results: Sequence[Mapping[str, Any]]) -> str:
    body = []
    for result in results:
        cost, seen = result["cost"], _seen(result["system"])
        times = cost.get("ms_a_query_cpu", {})
        body.append(
            (
                "",
                [
                    _text(result["system"]["label"]),
                    _text(result["dataset"]),
                    f"{result['pages']:,}",
                    f"{len(result['languages']):,}",
                    f"{cost['tokens_a_page']:,.0f}" if seen and "tokens_a_page" in cost else "–",
                    f"{cost['bytes_a_page']:,.0f}" if seen and "bytes_a_page" in cost else "–",
                    _text(cost.get("stage", "–")) if seen else "–",
                    f"{cost['cpu_seconds_a_page']:.2f}" if cost.get("cpu_seconds_a_page") else "–",
                    f"{times['p50']:.0f}<small>p95 {times['p95']:.0f}</small>" if times else "–",
                ],
            )
        )
    head = [
        "System",
        "Data set",
        "Pages",
        "Queries",
        "Tokens a page",
        "Bytes a page",
        "First stage",
        "CPU s a page",
        "ms a query",
    ]
    caption = "Bytes are those of the whole index; CPU time, of reading and encoding a page, and of a warm search"
    lost = [line for result in results for line in result["cost"].get("failed", ())]
    told = "".join(f"<li>{_text(line)}</li>" for line in dict.fromkeys(lost))
    note = f'<p class="note">Documents that could not be read and are not searched:</p><ul>{told}</ul>' if told else ""
    return "<h2>Systems</h2>" + _table(caption, head, body, words=2) + note


def _funnels(results: Sequence[Mapping[str, Any]]) -> str:
    some = [result for result in results if result["funnel"]]
    if not some:
        return ""
    steps = list(dict.fromkeys(step for result in some for step in result["funnel"]))
    steps.sort(key=lambda step: step.startswith("in the first"))
    bar = '{1:.3f}<span class="bar"><i style="width:{0:.1f}%"></i></span>'
    body = []
    for result in some:
        left = [result["funnel"].get(step) for step in steps]
        cells = ["–" if share is None else bar.format(100 * share, share) for share in left]
        body.append(("", [_text(result["system"]["label"]), _text(result["dataset"]), *cells]))
    caption = "The share of the relevant pages that is left. What the first stage loses, nothing brings back"
    return "<h2>Where pages are lost</h2>" + _table(caption, ["System", "Data set", *map(_text, steps)], body, words=2)


def _gallery(dataset: str, shown: Sequence[Mapping[str, Any]]) -> str:
    parts = [f"<h2>What was missed: {_text(dataset)}</h2>"]
    parts.append('<p class="quiet">From the worst to the nearest miss; bright is what the query found on a page.</p>')
    for miss in shown:
        place = f"at place {miss['place']}" if miss["place"] else "not among the first 100"
        sides = _side("Answers", miss["right"], place) + _side("Came first", miss["ours"], "")
        language = f' lang="{html.escape(miss["lang"])}"' if re.fullmatch(r"[a-z]{2,3}(-\w+)?", miss["lang"]) else ""
        parts.append(
            f'<div class="miss"><blockquote dir="auto"{language}>{_text(miss["text"])}</blockquote>'
            f'<div class="pair">{sides}</div></div>'
        )
    return "".join(parts)


def _side(what: str, side: Mapping[str, Any], place: str) -> str:
    told = f"<b>{what}</b>{f' ({_text(place)})' if place else ''}: {_text(side['page'])}"
    picture = ""
    if side["picture"]:
        picture = f'<img src="{side["picture"]}" alt="{_text(side["page"])}" loading="lazy">'
    words = f'<p class="quiet" dir="auto">{_text(side["text"])}</p>' if side["text"] else ""
    return f"<div><p>{told}</p>{picture}{words}</div>"


def _again(document: Mapping[str, Any]) -> str:
    left_out = {(r["dataset"], next(iter(r["languages"]), "")): r["left_out"] for r in document["results"]}
    facts = {
        "Command": f"<pre>{_text(shlex.join(document['command']))}</pre>" if document["command"] else "–",
        "Encoder": _encoder(document.get("encoder", {})),
        "Machine": _text(f"{document['machine']['processor']}, {document['machine']['cores']} cores"),
        "System": _text(document["machine"]["system"]),
        "Versions": _text(", ".join(f"{name} {value}" for name, value in document["versions"].items())),
        "Measures": _text(", ".join(document["measures"]) + ". Gains are linear, as in trec_eval."),
        "Left out": f"{sum(left_out.values())} queries to which no page is relevant",
        "Beside this": "eval.json has the value of every query; runs/ has TREC run files and qrels, for trec_eval",
    }
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())
    return f"<h2>Run it again</h2><dl>{listed}</dl>"


def _encoder(fingerprint: Mapping[str, Any]) -> str:
    """Its name, and a digest of all that makes its vectors what they are; eval.json has it in full."""
    digest = hashlib.blake2b(json.dumps(fingerprint, sort_keys=True).encode(), digest_size=6).hexdigest()
    return _text(f"{fingerprint['name']}, fingerprint {digest}") if fingerprint else "–"
