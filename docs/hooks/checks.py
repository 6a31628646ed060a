"""What mkdocs does not look at: the built pages as a browser gets them. A warning is an error in a strict build.

Every link and picture of every page leads to a file of the site, and to an anchor that is there; pictures have a text
in their place; nothing is fetched from elsewhere.
"""

import posixpath
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mkdocs.plugins import get_plugin_logger

log = get_plugin_logger("checks")


@dataclass
class Page(HTMLParser):
    """What a page holds that can be wrong."""

    anchors: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    fetched: set[str] = field(default_factory=set)  # by the browser, without a click
    without_text: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note links, anchors and pictures (HTMLParser's protocol)."""
        given = {name: value or "" for name, value in attributes}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag in ("a", "link") and "href" in given:
            (self.links if tag == "a" else self.fetched).add(given["href"])
        if "src" in given:
            self.fetched.add(given["src"])
        if tag == "img" and not given.get("alt"):
            self.without_text.append(given.get("src", ""))


def on_post_build(config: Any) -> None:
    """Look at all pages."""
    site = Path(config.site_dir)
    pages = {}
    for path in sorted(site.rglob("*.html")):
        if path.name != "404.html":  # it may be shown in place of any page, so its links begin at the root
            pages[path.relative_to(site).as_posix()] = page = Page()
            page.feed(path.read_text(encoding="utf-8"))
    for name, page in pages.items():
        for problem in _problems(name, page, pages, site):
            log.warning(f"{name}: {problem}")


def _problems(name: str, page: Page, pages: dict[str, Page], site: Path) -> list[str]:
    found = [f"the picture {source} has no alt text" for source in page.without_text]
    found += [f"{link} is fetched from elsewhere" for link in sorted(page.fetched) if _is_external(link)]
    for link in sorted(link for link in page.links | page.fetched if not _is_external(link)):
        parts = urlsplit(link)
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(parts.path)))
        target = name if not parts.path else target
        if not (site / target).is_file():
            found.append(f"{link} leads to no file of the site")
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
            found.append(f"{link} leads to no anchor of {target}")
    return found


def _is_external(link: str) -> bool:
    parts = urlsplit(link)
    return bool(parts.scheme or parts.netloc)
