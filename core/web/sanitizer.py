"""Sanitize untrusted HTML: remove scripts, forms, links and remote content.

This is the first of three protections. The Content-Security-Policy blocks loads and scripts. The
sandbox of the response or frame blocks form submission, new windows and navigation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import unquote

import nh3

MAX_HTML_CHARS = 500_000
"""The number of characters that are parsed.

Parsing takes quadratic time for input that is nested or repeated on purpose.
"""

MAX_TAGS = 10_000

MAX_REPEATED_CHARS = 20_000_000
"""The maximum number of characters in tags that the HTML parser adds.

The parser reopens an unclosed tag, such as `<b>`, in each block.
"""

MAX_INLINE_IMAGES_CHARS = 20_000_000
"""The maximum number of characters in inline images.

A mail may show the same image any number of times.
"""

TAGS = {
    "a", "abbr", "address", "article", "aside", "b", "bdi", "bdo", "big", "blockquote", "br",
    "caption", "center", "cite", "code", "col", "colgroup", "dd", "del", "details", "dfn", "div",
    "dl", "dt", "em", "figcaption", "figure", "font", "footer", "h1", "h2", "h3", "h4", "h5", "h6",
    "header", "hgroup", "hr", "i", "img", "ins", "kbd", "li", "main", "mark", "nav", "ol", "p",
    "pre", "q", "rp", "rt", "ruby", "s", "samp", "section", "small", "span", "strike", "strong",
    "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead", "time", "tr", "tt",
    "u", "ul", "var", "wbr",
}  # fmt: skip
REMOVED_WITH_CONTENT = {
    "script", "style", "title", "template", "noscript", "iframe", "object", "embed", "applet",
    "svg", "math", "select", "textarea", "audio", "video", "canvas", "noembed", "noframes", "xmp",
    "plaintext",
}  # fmt: skip
"""Tags that are removed with their content. Other disallowed tags keep their text."""

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
"""Allowed attributes by tag. Links keep their text and lose their address.

A browser may look up the host name of a link before anyone follows it.
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
_LOADING = re.compile(r"[\\(@<]|/\*")
"""CSS functions can load files; the other characters can hide a function."""

# The parser reopens at most three formatting elements that are alike
# (https://html.spec.whatwg.org/multipage/parsing.html#list-of-active-formatting-elements). `a` is
# not listed here: the next `<a>` closes it.
_FORMATTING = re.compile(
    r"""<(b|big|code|em|font|i|nobr|s|small|strike|strong|tt|u)(?=[\s/>])"""
    r"""((?:\s+[\w:-]+(?:\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>=`]+))?)*\s*/?>)?""",
    re.IGNORECASE,
)
MAX_REOPENED = 3
TAG_OVERHEAD_CHARS = 20
"""The cost of a tag beyond its own length, in characters: its end tag and parser memory."""

_INLINE = re.compile(
    r"data:image/(?:png|jpe?g|gif|webp|avif);base64,[A-Za-z0-9+/=\s]*", re.IGNORECASE
)


class Sanitizer:
    """Sanitizes the HTML parts of one document. The limits apply to all parts together.

    Args:
      images: Inline images of the same mail, as `data:` URLs by content ID.

    Attributes:
      is_truncated: True if input was left out.
    """

    def __init__(self, images: Mapping[str, str] | None = None) -> None:
        self._filter = _filter(images or {})
        self._chars, self._tags, self._repeated = MAX_HTML_CHARS, MAX_TAGS, MAX_REPEATED_CHARS
        self.is_truncated = False

    def clean(self, html: str) -> str:
        """Return safe HTML for an untrusted part."""
        cleaner = nh3.Cleaner(
            tags=TAGS,
            clean_content_tags=REMOVED_WITH_CONTENT,
            attributes=ATTRIBUTES,
            attribute_filter=self._filter,
            link_rel=None,
            url_schemes={"cid", "data"},
            url_relative="deny",
            filter_style_properties=STYLES,
        )
        return cleaner.clean(self._limit_formatting(self._truncate(html)))

    def _truncate(self, html: str) -> str:
        parts = html[: self._chars].split("<", self._tags + 1)
        shown = "<".join(parts[: self._tags + 1])
        self.is_truncated = self.is_truncated or len(shown) < len(html)
        self._chars -= len(shown)
        self._tags -= shown.count("<")
        return shown

    def _limit_formatting(self, html: str) -> str:
        repeats = max(html.count("<"), 1) * MAX_REOPENED
        room = self._repeated // repeats
        limited, left = _limit_formatting(html, room)
        self._repeated -= (room - left) * repeats
        return limited


def sanitize(html: str, images: Mapping[str, str] | None = None) -> tuple[str, bool]:
    """Return safe HTML, and True if the input was truncated.

    Args:
      html: Untrusted HTML.
      images: As for `Sanitizer`.
    """
    sanitizer = Sanitizer(images)
    return sanitizer.clean(html), sanitizer.is_truncated


def _limit_formatting(html: str, room: int) -> tuple[str, int]:
    """Keep formatting tags of different kinds until their total length exceeds `room`.

    Tags of further kinds become `<span>`.

    Returns:
      The HTML, and the room that is left.
    """
    kinds: set[str] = set()

    def limit(match: re.Match[str]) -> str:
        nonlocal room
        if match[0] not in kinds:
            cost = len(match[0]) + TAG_OVERHEAD_CHARS
            # A tag that the pattern does not match completely may be of another kind.
            if match[2] is None or cost > room:
                return f"<span{match[0][1 + len(match[1]) :]}"
            room -= cost
            kinds.add(match[0])
        return match[0]

    return _FORMATTING.sub(limit, html), room


def _filter(images: Mapping[str, str]) -> Callable[[str, str, str], str | None]:
    room = MAX_INLINE_IMAGES_CHARS

    # nh3 passes three arguments.
    def filter_attribute(element: str, attribute: str, value: str) -> str | None:  # noqa: ARG001
        nonlocal room
        if attribute == "style":
            return ";".join(
                declaration
                for declaration in value.split(";")
                if not _LOADING.search(_COLOURS.sub("", declaration))
            )
        if attribute == "src":
            source = _source(value.strip(), images)
            room -= len(source or "")
            return source if room >= 0 else None
        return value

    return filter_attribute


def _source(value: str, images: Mapping[str, str]) -> str | None:
    if value[:4].lower() == "cid:":
        # RFC 2392, section 2: a content ID is percent-encoded in a URL; many mails omit this.
        return images.get(value[4:]) or images.get(unquote(value[4:]))
    return value if _INLINE.fullmatch(value) else None
