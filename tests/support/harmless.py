"""Checks that an HTML document made from untrusted content neither acts nor loads anything."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

from support.hostile_texts import REMOTE

OWN = {"html": 1, "head": 1, "title": 1, "style": 1, "meta": 3}
"""The elements of the document itself, and how many of each it has."""

ACTING = {"script", "link", "base", "iframe", "object", "embed", "form", "input", "button", "svg",
    "math", "template", "audio", "video", "frame", "frameset", "textarea", "select"}  # fmt: skip
REFUSED = {"href", "action", "background", "srcset", "srcdoc", "id", "class", "name", "target",
    "ping", "formaction", "poster", "xlink:href", "lowsrc", "dynsrc", "longdesc", "data",
    "cite", "usemap", "imagesrcset", "http-equiv"}  # fmt: skip
IMAGE = re.compile(r"data:image/(png|jpe?g|gif|webp|avif);base64,[A-Za-z0-9+/=\s]*\Z")
LOADING = re.compile(r"url|expression|import|behaviou?r|binding|image-set|\\", re.IGNORECASE)


def nodes(html: str) -> Iterator[LexborNode]:
    """Return all elements, as a browser parses them."""
    root = LexborHTMLParser(html).root
    assert root is not None
    return (node for node in root.traverse(include_text=False))


def assert_harmless(html: str) -> None:
    """Assert that a document of untrusted HTML neither acts nor loads anything."""
    found: Counter[str] = Counter()
    for node in list(nodes(html)):
        assert node.tag not in ACTING, node.tag
        found[node.tag] += node.tag in OWN
        if node.tag in OWN:
            continue
        for name, value in node.attributes.items():
            assert not name.startswith("on"), f"{node.tag} {name}={value}"
            assert name not in REFUSED, f"{node.tag} {name}={value}"
            assert REMOTE not in (value or "") or name in ("alt", "title"), f"{name}={value}"
            if name == "src":
                assert IMAGE.match(value or ""), value
            if name == "style":
                assert not LOADING.search(value or ""), value
    assert +found == OWN
    assert html.count("http-equiv=") == html.count('<meta http-equiv="Content-Security-Policy"')
