"""HTML from outside, made fit to be looked at: nothing in it acts, loads or leads anywhere.

It is the first of three fences. The answer's Content-Security-Policy lets a browser load nothing
and run nothing, and the sandbox of the frame holds what would submit, open or navigate.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import nh3

LONGEST = 500_000
"""Characters that are parsed.

Parsing costs the square of what somebody nests or repeats on purpose.
"""

MAX_TAGS = 10_000

MAX_REPEATED_CHARS = 20_000_000
"""Characters of tags that an HTML parser adds by itself.

It opens an unclosed tag, such as `<b>`, again in each block.
"""

MAX_INLINE_IMAGES_CHARS = 20_000_000
"""Characters of inline images; a mail may name one of its images any number of times."""

TAGS = {
    "a", "abbr", "address", "article", "aside", "b", "bdi", "bdo", "big", "blockquote", "br",
    "caption", "center", "cite", "code", "col", "colgroup", "dd", "del", "details", "dfn", "div",
    "dl", "dt", "em", "figcaption", "figure", "font", "footer", "h1", "h2", "h3", "h4", "h5", "h6",
    "header", "hgroup", "hr", "i", "img", "ins", "kbd", "li", "main", "mark", "nav", "ol", "p",
    "pre", "q", "rp", "rt", "ruby", "s", "samp", "section", "small", "span", "strike", "strong",
    "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "time", "tr", "tt",
    "u", "ul", "var", "wbr",
}  # fmt: skip
DROPPED_WHOLE = {
    "script", "style", "title", "template", "noscript", "iframe", "object", "embed", "applet",
    "svg", "math", "select", "textarea", "audio", "video", "canvas", "noembed", "noframes", "xmp",
    "plaintext",
}  # fmt: skip
"""These go with what is in them; of all others that are not kept, the text stays."""

ATTRIBUTES = {
    "*": {
        "align",
        "valign",
        "bgcolor",
        "color",
        "dir",
        "lang",
        "title",
        "style",
        "width",
        "height",
    },
    "font": {"face", "size"},
    "img": {"src", "alt", "border"},
    "ol": {"start", "type"},
    "table": {"border", "cellpadding", "cellspacing"},
    "td": {"colspan", "rowspan", "nowrap"},
    "th": {"colspan", "rowspan", "nowrap"},
}
"""Links keep their words and lose their addresses.

A browser may look up the name of a link's host before anybody follows it.
"""

STYLES = {
    "background", "background-color", "border", "border-bottom", "border-collapse", "border-color",
    "border-left", "border-radius", "border-right", "border-spacing", "border-style", "border-top",
    "border-width", "clear", "color", "direction", "display", "float", "font", "font-family",
    "font-size", "font-style", "font-variant", "font-weight", "height", "letter-spacing",
    "line-height", "list-style-type", "margin", "margin-bottom", "margin-left", "margin-right",
    "margin-top", "max-height", "max-width", "min-height", "min-width", "opacity", "overflow-wrap",
    "padding", "padding-bottom", "padding-left", "padding-right", "padding-top", "table-layout",
    "text-align", "text-decoration", "text-indent", "text-transform", "vertical-align",
    "white-space", "width", "word-break", "word-spacing",
}  # fmt: skip
_COLOURS = re.compile(r"\b(?:rgb|hsl)a?\([\d\s.,%/deg]*\)", re.IGNORECASE)
_LOADS = re.compile(r"[\\(@<]|/\*")
"""Functions name what could be loaded; the others hide them."""

# Of those that are alike it opens three anew
# (https://html.spec.whatwg.org/multipage/parsing.html#list-of-active-formatting-elements). `a` is
# not among them: the next one ends it.
_FORMATTING = re.compile(
    r"""<(b|big|code|em|font|i|nobr|s|small|strike|strong|tt|u)(?=[\s/>])"""
    r"""((?:\s+[\w:-]+(?:\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>=`]+))?)*\s*/?>)?""",
    re.IGNORECASE,
)
ALIKE = 3
A_TAG = 20
"""Characters that a tag costs beside its own: its end tag, and its memory while it is parsed."""

_INLINE = re.compile(
    r"data:image/(?:png|jpe?g|gif|webp|avif);base64,[A-Za-z0-9+/=\s]*", re.IGNORECASE
)


def sanitize(html: str, images: Mapping[str, str] | None = None) -> tuple[str, bool]:
    """What of it may be shown, and whether that is not all of it because it is too much.

    Parameters:
      images: Inline images of the same mail, as `data:` URLs by their content id.
    """
    kept = _bounded(html)
    room = MAX_REPEATED_CHARS // max(kept.count("<"), 1) // ALIKE
    cleaner = nh3.Cleaner(
        tags=TAGS,
        clean_content_tags=DROPPED_WHOLE,
        attributes=ATTRIBUTES,
        attribute_filter=_filter(images or {}),
        link_rel=None,
        url_schemes={"cid", "data"},
        url_relative="deny",
        filter_style_properties=STYLES,
    )
    return cleaner.clean(_few_kinds(kept, room)), len(kept) < len(html)


def _few_kinds(html: str, room: int) -> str:
    """Limit the formatting tags to so many kinds that their lengths fit into `room`.

    Further kinds format nothing.
    """
    kinds: set[str] = set()

    def kept(found: re.Match[str]) -> str:
        nonlocal room
        if found[0] not in kinds:
            cost = len(found[0]) + A_TAG
            # What is not read to its end here may be a kind of its own.
            if found[2] is None or cost > room:
                return f"<span{found[0][1 + len(found[1]) :]}"
            room -= cost
            kinds.add(found[0])
        return found[0]

    return _FORMATTING.sub(kept, html)


def _bounded(html: str) -> str:
    parts = html[:LONGEST].split("<", MAX_TAGS + 1)
    return "<".join(parts[: MAX_TAGS + 1])


def _filter(images: Mapping[str, str]) -> Callable[[str, str, str], str | None]:
    room = MAX_INLINE_IMAGES_CHARS

    # nh3's signature.
    def filtered(element: str, attribute: str, value: str) -> str | None:  # noqa: ARG001
        nonlocal room
        if attribute == "style":
            return ";".join(
                one for one in value.split(";") if not _LOADS.search(_COLOURS.sub("", one))
            )
        if attribute == "src":
            source = _source(value.strip(), images)
            room -= len(source or "")
            return source if room >= 0 else None
        return value

    return filtered


def _source(value: str, images: Mapping[str, str]) -> str | None:
    if value[:4].lower() == "cid:":
        return images.get(value[4:])
    return value if _INLINE.fullmatch(value) else None
