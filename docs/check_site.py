"""Checks the built site: `python docs/check_site.py docs/_build/html`.

Every link within it must lead to a page that is there, and to a place on it; every picture has an alternative text; and
nothing is loaded from elsewhere, so that the site reads the same without a network. Links to other sites are counted,
not followed.
"""

from __future__ import annotations

import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """Places, links, pictures and loaded files of one page."""

    def __init__(self, text: str):
        super().__init__()
        self.places, self.links, self.untold, self.loaded = {"", "top"}, [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.places |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "img":
            self.loaded.append(found.get("src", ""))
            if not (found.get("alt") or "").strip():
                self.untold.append(found.get("src", ""))
        if tag == "script" and found.get("src"):
            self.loaded.append(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "icon", "preload", "modulepreload"):
            self.loaded.append(found.get("href", ""))


@cache
def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def wrong_link(source: Path, link: str) -> str | None:
    """What is wrong with a link within the site, or None."""
    parts = urlsplit(link)
    target = source if not parts.path else (source.parent / unquote(parts.path)).resolve()
    if target.is_dir():
        target = target / "index.html"
    if not target.is_file():
        return f"{link}: no such file"
    if parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in page(target).places:
        return f"{link}: no such place on the page"
    return None


def check(folder: Path) -> tuple[list[str], dict[str, int]]:
    """Faults of a built site, and what was counted."""
    faults, counts = [], {"pages": 0, "links": 0, "links to other sites": 0, "files and pictures": 0}
    for path in sorted(folder.resolve().rglob("*.html")):
        found, where = page(path), path.relative_to(folder.resolve())
        counts["pages"] += 1
        for link in found.links:
            outside = bool(urlsplit(link).scheme or urlsplit(link).netloc)
            counts["links to other sites" if outside else "links"] += 1
            if not outside and (wrong := wrong_link(path, link)):
                faults.append(f"{where}: {wrong}")
        for link in found.loaded:
            counts["files and pictures"] += 1
            parts = urlsplit(link)
            if parts.netloc:
                faults.append(f"{where}: {link} is loaded from elsewhere")
            elif not parts.scheme and (wrong := wrong_link(path, link.split("?")[0])):
                faults.append(f"{where}: {wrong}")
        faults += [f"{where}: picture {source} has no alternative text" for source in found.untold]
    return faults, counts


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "_build" / "html")
    faults, counts = check(folder)
    print("\n".join(faults))
    print("; ".join(f"{number:,} {what}" for what, number in counts.items()), f"; faults: {len(faults)}", sep="")
    raise SystemExit(bool(faults) or not counts["pages"])


if __name__ == "__main__":
    main()
