"""The page of the report: one HTML file without scripts or links to elsewhere, readable in light and dark and on a phone."""
from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

STYLE = """
:root { color-scheme: light dark; --ink: #1c1b1a; --soft: #5d5853; --line: #cfc8c0; --page: #fbf9f6; --card: #ffffff; --accent: #a8381f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ece7e1; --soft: #a9a29a; --line: #4a4540; --page: #171513; --card: #211e1b; --accent: #f08a6c; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0 .25rem; }
h2 { font-size: 1.25rem; margin: 0 0 .75rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p, li { max-width: 48rem; }
.lead, figcaption, footer { color: var(--soft); }
nav { display: flex; flex-wrap: wrap; gap: .4rem .9rem; margin: 1rem 0 1.5rem; }
a { color: var(--accent); }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1.25rem 1.4rem; margin: 0 0 1.25rem; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; min-width: 100%; }
th, td { padding: .32rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { text-align: left; font-weight: 600; color: var(--soft); white-space: normal; vertical-align: bottom; }
td { white-space: nowrap; }
td.long { white-space: normal; min-width: 14rem; }
tr:last-child td { border-bottom: 0; }
figure { margin: .75rem 0; }
figure svg { display: block; width: 100%; height: auto; max-width: 46rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 1rem; }
figcaption { font-size: .9rem; margin-top: .25rem; }
code { font: .88em ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace; }
.missing { color: var(--soft); font-style: italic; }
.warning { border-left: .3rem solid var(--accent); padding-left: .8rem; }
@media (max-width: 40rem) {
  main { padding: .75rem .6rem 2rem; } section { padding: .9rem .8rem; border-radius: .4rem; } body { font-size: 15px; }
  .scroll figure, figure { overflow-x: auto; } figure svg { min-width: 30rem; } h1 { font-size: 1.4rem; } }
@media print { section { break-inside: avoid; border: 0; } nav { display: none; } }
"""
LONG_CELL = 44          # characters from which on a cell may wrap


@dataclass(frozen=True)
class Section:
    """A titled part of the page; `body` is HTML."""

    anchor: str
    title: str
    body: str


def markdown(text: str) -> str:
    """HTML of a block of the documents: tables that scroll, links to files of the checkout as plain text."""
    from markdown_it import MarkdownIt
    rendered = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)
    rendered = re.sub(r'<a href="(?!#|https?:)[^"]*">(.*?)</a>', r"\1", rendered)
    rendered = re.sub(r'<a href="#[^"]*">(.*?)</a>', r"\1", rendered)
    rendered = re.sub(r"<(td|th)([^>]*)>(.*?)</\1>", _cell, rendered, flags=re.S)
    return rendered.replace("<table>", '<div class="scroll"><table>').replace("</table>", "</table></div>")


def _cell(match: re.Match[str]) -> str:
    tag, attributes, content = match.groups()
    long = ' class="long"' if tag == "td" and len(re.sub(r"<[^>]*>", "", content)) > LONG_CELL else ""
    return f"<{tag}{attributes}{long}>{content}</{tag}>"


def figure(svg: str, caption: str) -> str:
    """A plot with what it shows."""
    return f"<figure>{svg}<figcaption>{html.escape(caption)}</figcaption></figure>"


def missing(what: str) -> str:
    """Instead of a part that cannot be shown."""
    return f'<p class="missing">Not measured yet: needs {html.escape(what)}.</p>'


def page(title: str, lead: str, sections: Sequence[Section], footer: str) -> str:
    """The whole file."""
    links = "".join(f'<a href="#{section.anchor}">{html.escape(section.title)}</a>' for section in sections)
    parts = "\n".join(f'<section id="{section.anchor}"><h2>{html.escape(section.title)}</h2>\n{section.body}\n</section>' for section in sections)
    return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style></head>\n<body><main>\n<h1>{html.escape(title)}</h1>\n"
            f'<p class="lead">{lead}</p>\n<nav>{links}</nav>\n{parts}\n<footer>{footer}</footer>\n</main></body></html>\n')
