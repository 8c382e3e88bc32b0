"""The text of HTML as a person sees it, from tokens, in linear time and without a tree.

A tree costs memory, has a maximum depth, and grows without bound for misnested formatting. The
text needs only the order of the tokens and the scopes of hidden elements, lists and quotes.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field

from core.mail.charsets import clean

MAX_TOKENS = 150_000
"""The maximum number of tags and texts between them that are read, in all HTML of a mail."""

MAX_LINK_CHARS = 2_000
MAX_LINK_LINES = 20
"""The number of lines of a link that are searched for its own address."""

_SCHEMES = ("http://", "https://", "mailto:", "ftp://", "tel:")
MAX_QUOTES = 50
"""The maximum number of quote marks before a line."""

_TOKEN = re.compile(
    r"<!--(?:>|->|.*?(?:--!?>|\Z))|<[!?][^>]*>?|</\s*([A-Za-z][^\s/>]{0,60})[^>]*>?"
    r"|<([A-Za-z][^\s/>]{0,60})((?:[^>\"']|\"[^\"]*\"|'[^']*')*+)>|<[A-Za-z][^>]*>?|[^<]+|<",
    re.DOTALL,
)
_LENIENT = re.compile(
    _TOKEN.pattern.replace(r"((?:[^>\"']|\"[^\"]*\"|'[^']*')*+)", "([^>]*)"), re.DOTALL
)
"""The tokens if quotes do not matter: a tag ends at the first `>`."""

MAX_UNCLOSED = 20
"""The number of tags without an end outside of quotes; then quotes do not matter any more."""

_LONG_REFERENCE = re.compile(r"&#(?:[0-9]{20,}|[xX][0-9A-Fa-f]{20,});?")
_ATTRIBUTE = re.compile(
    r"([^\s=/\"'>]{1,60})(?:\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+)))?", re.DOTALL
)
_NEEDED = frozenset(
    {"style", "hidden", "href", "alt", "type", "class", "id", "width", "height", "src", "size"}
)
_ZERO = r"0+(?:\.0+)?(?:px|pt|em|rem|ex|%)?"
_HIDDEN = re.compile(
    r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|mso-hide\s*:\s*all"
    rf"|opacity\s*:\s*(?:{_ZERO}|\.0+)\s*(?:!important\s*)?(?:;|$)"
    rf"|max-height\s*:\s*{_ZERO}\s*(?:!important\s*)?(?:;|$)"
    r"|text-indent\s*:\s*-\d{3,}|(?:left|top|margin-left|margin-top)\s*:\s*-\d{4,})",
    re.IGNORECASE,
)
_SIZE = re.compile(
    rf"(?:^|;)\s*font(?:-size\s*:|\s*:[^;]*?(?<![\w.]))\s*(?:(?P<zero>{_ZERO})(?=[\s/;!]|$)"
    r"|[\d.]+(?:px|pt|rem|in|cm|mm|pc|vw|vh)|(?:xx-|x-)?(?:small|large)|medium|initial)",
    re.IGNORECASE,
)
"""A size of text of its own, which does not depend on the size around it."""

_STYLE_COMMENT = re.compile(r"/\*.*?(?:\*/|\Z)", re.DOTALL)
MAX_STYLE_CHARS = 5_000
_AT_RULE = re.compile(r"@[\w-]{1,60}+[^{};@]{0,500}+(?:;|\{(?:[^{}]*+\{[^{}]*+\})*+[^{}]*+\}?)")
_SIMPLE = re.compile(r"\s*(?:\*|[A-Za-z][A-Za-z0-9]*)?([.#][\w-]{1,100})\s*\Z")
_NAMED = re.compile(r"[.#][\w-]{1,100}")
_DISPLAY = re.compile(r"(?:^|;)\s*display\s*:\s*(none\b)?", re.IGNORECASE)
MAX_RULES = 2_000
"""The maximum number of style rules that are read, in all HTML of a part."""

_CLIPPED = re.compile(
    rf"(?:^|;)\s*(?:height|width|max-width)\s*:\s*{_ZERO}\s*(?:!important)?\s*(?:;|$)",
    re.IGNORECASE,
)
_OVERFLOW = re.compile(r"overflow\s*:\s*hidden", re.IGNORECASE)
_PRE = re.compile(r"white-space\s*:\s*(?:pre|break-spaces)", re.IGNORECASE)
_SKIPPED = frozenset({"script", "style", "title", "template", "noembed", "iframe", "object",
    "applet", "svg", "math", "select", "textarea", "audio", "video", "canvas", "xmp"})  # fmt: skip
_RAW = {name: re.compile(rf"</{name}[^>]*>?", re.IGNORECASE) for name in (
    "script", "style", "title", "textarea", "xmp", "iframe", "noembed")}  # fmt: skip
_VOID = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta",
    "param", "source", "track", "wbr", "frame"})  # fmt: skip
_BLOCK = frozenset({"address", "article", "aside", "blockquote", "center", "dd", "details",
    "dialog",
    "dir", "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "frameset",
    "h1", "h2", "h3", "h4", "h5", "h6", "header", "hgroup", "hr", "html", "body", "legend", "li",
    "main", "menu", "nav", "noframes", "ol", "p", "pre", "section", "summary", "table", "tbody",
    "tfoot", "thead", "tr", "ul", "caption", "option", "listing"})  # fmt: skip
_SPACED = frozenset(
    {"p", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "dl", "blockquote", "pre"}
)
_CLOSES = {"a": {"a"}, "li": {"li"}, "p": {"p"}, "dt": {"dt", "dd"}, "dd": {"dt", "dd"},
    "td": {"td", "th"}, "th": {"td", "th"}, "tr": {"td", "th", "tr"}, "option": {"option"},
    "tbody": {"td", "th", "tr", "thead", "tbody"}}  # fmt: skip
_BLANKS = re.compile(r"[ \t\r\n\f]+")
_INVISIBLE = (
    "\u200b\u200c\u200d\u200e\u200f\u034f\u00ad\ufeff\u2060\u2061\u2062\u2063\u2064\u180e"
    "\u115f\u1160\u3164\u17b4\u17b5\u2800"
)
_PADDING = re.compile(
    r"(?<![ \u00a0\u2007\u2002-\u200a])[ \u00a0\u2007\u2002-\u200a]*+"
    rf"(?:[{_INVISIBLE}][ \u00a0\u2007\u2002-\u200a]*){{3,}}"
)
_LONE = re.compile(rf"(?:(?<=\s)|^)[{_INVISIBLE}]+(?=\s|$)", re.MULTILINE)


@dataclass(slots=True)
class _Element:
    name: str
    hidden: bool = False
    pre: bool = False
    quote: bool = False
    href: str = ""
    start: int = 0
    tiny: bool = False


@dataclass(slots=True)
class HtmlText:
    """The text, True if the HTML was longer than the bound, and the number of its tokens."""

    text: str
    is_cut: bool = False
    tokens: int = 0


@dataclass(slots=True)
class _Writer:
    """Writes words into lines; lines get quote marks when they end."""

    lines: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    has_words: bool = False
    quotes: int = 0
    depth: int = 0
    wants_blank: bool = False
    gap: bool = False

    def text(self, text: str, *, pre: bool) -> None:
        if pre:
            first, *others = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
            self._add(first)
            for line in others:
                self.end_line(force=True)
                self._add(line)
            return
        text = _BLANKS.sub(" ", text)
        if self.gap or not self.words:
            text = text.removeprefix(" ")
        if text:
            self._add(text)
            self.gap = text.endswith(" ")

    def _add(self, text: str) -> None:
        if text:
            if not self.words and self.wants_blank and self.lines and self.lines[-1].strip("> "):
                self.lines.append("> " * min(self.depth, self.quotes, MAX_QUOTES))
            self.wants_blank = False
            self.words.append(text)
            self.has_words = self.has_words or not text.isspace() or "\u00a0" in text
            self.gap = False

    def _mark(self) -> str:
        return "> " * min(self.quotes, MAX_QUOTES)

    def end_line(self, *, force: bool = False) -> None:
        line = "".join(self.words).rstrip(" ") if not force else "".join(self.words)
        if line.strip("\x01") or force:
            self.lines.append(self._mark() + line)
            self.depth = self.quotes
        self.words.clear()
        self.gap = self.has_words = False


class _Reader:
    def __init__(self) -> None:
        self.out = _Writer()
        self.stack: list[_Element] = []
        self.hidden = self.pre = 0
        self.open: dict[str, int] = {}
        self.tiny = False
        self.styles = _Styles()

    def start(self, name: str, attributes: str) -> None:
        for closed in (
            _CLOSES.get(name, ()) if name in _CLOSES else ({"p"} if name in _BLOCK else ())
        ):
            self._close_near(closed, name)
        found = _attributes(attributes) if attributes.strip() else {}
        style = _declarations(found.get("style", ""))
        hidden = _is_hidden(name, found, style) or self.styles.hide(found, style)
        if name in _VOID:
            if not hidden and not self.hidden:
                self._void(name, found)
            return
        if name in _BLOCK and not self.hidden and not hidden:
            self.block(name)
        element = _Element(
            name,
            hidden,
            name in ("pre", "listing") or bool(style and _PRE.search(style)),
            name == "blockquote" and not hidden and not self.hidden,
            tiny=self.tiny,
        )
        self.tiny = _is_tiny(name, found, style, around=self.tiny)
        if not self.hidden and not hidden:
            if name == "a" and (href := found.get("href", "").strip()):
                element.href, element.start = href[: MAX_LINK_CHARS + 1], len(self.out.lines)
                self.out.words.append("\x01")
            elif name in ("td", "th") and self.out.has_words:
                self.out._add("\t")
                self.out.gap = True
            elif name == "li":
                self.out.words.append("")
        if element.quote:
            self.out.quotes += 1
        self.hidden += hidden
        self.pre += element.pre
        self.open[name] = self.open.get(name, 0) + 1
        self.stack.append(element)

    def _close_near(self, closed: str, name: str) -> None:
        """Close an open element of this name whose end is implied, within its container."""
        if not self.open.get(closed):
            return
        for element in self.stack[-1:-30:-1]:
            if element.name == closed:
                self.end(closed)
                return
            if element.name in (
                "table",
                "ul",
                "ol",
                "dl",
                "td",
                "th",
                "blockquote",
                "div",
                "body",
            ) and (element.name != name):
                return

    def end(self, name: str) -> None:
        if name == "br":
            self._void("br", {})
        if name == "p" and not self.open.get(name) and not self.hidden:
            self.block(name)
        if not self.open.get(name):
            return
        if name in ("body", "html"):
            return  # what follows is text all the same
        while self.stack:
            element = self.stack.pop()
            self.open[element.name] -= 1
            self._leave(element)
            if element.name == name:
                return

    def _leave(self, element: _Element) -> None:
        if element.name in _BLOCK and not self.hidden:
            self.block(element.name)
        self.hidden -= element.hidden
        self.tiny = element.tiny
        self.pre -= element.pre
        if element.quote:
            self.out.end_line()
            self.out.quotes -= 1
        if element.href and not self.hidden:
            self._link(element)

    def _link(self, element: _Element) -> None:
        words, mark = self.out.words, -1
        for index in range(len(words) - 1, max(len(words) - 200, -1), -1):
            if words[index] == "\x01":
                mark = index
                break
        if mark >= 0:
            shown = _start(words[mark + 1 :]).strip()
            words[mark] = ""
        else:  # the link has several lines
            lines = self.out.lines[max(element.start, len(self.out.lines) - MAX_LINK_LINES) :]
            shown = f"{_start(lines, ' ')} {_start(words[-MAX_LINK_LINES:])}"
            shown = shown.replace("\x01", "").strip(" >\t")
        address = _address(_unescaped(element.href), shown)
        if address is None:
            return
        if all(not each or each.isspace() for each in words[-200:]) and self.out.lines:
            self.out.lines[-1] += f" <{address}>"
            return
        blank = " " if words and words[-1].endswith(" ") else ""
        if blank:
            words[-1] = words[-1].rstrip(" ")
        self.out._add(f" <{address}>{blank}")
        self.out.gap = bool(blank)

    def _void(self, name: str, found: dict[str, str]) -> None:
        if name == "br":
            self.out.wants_blank = False if self.out.words else self.out.wants_blank
            self.out.end_line(force=bool(self.out.lines))
        elif name == "hr":
            self.out.end_line()
        elif name == "img" and (alt := found.get("alt", "").strip()) and not _is_pixel(found):
            self.out.text(_unescaped(alt), pre=False)

    def block(self, name: str) -> None:
        self.out.end_line()
        if name in _SPACED:
            self.out.wants_blank = True


def _start(texts: list[str], separator: str = "") -> str:
    """Return the start of joined texts: enough to find an address in it."""
    found, room = [], 2 * MAX_LINK_CHARS
    for text in texts:
        found.append(text[:room])
        room -= len(found[-1])
        if room <= 0:
            break
    return separator.join(found)


def _unescaped(text: str) -> str:
    if "&#" in text:  # the library raises on thousands of digits
        text = _LONG_REFERENCE.sub("\ufffd", text)
    return html.unescape(text)


def _address(href: str, shown: str) -> str | None:
    """Return the address to write behind a link; None if the words have it, or there are none."""
    if len(href) > MAX_LINK_CHARS or not shown or not href.lower().startswith(_SCHEMES):
        return None
    address = href[7:].split("?", maxsplit=1)[0] if href.lower().startswith("mailto:") else href
    bare = re.sub(r"^\w+:(?://)?", "", address).rstrip("/")
    return None if bare.lower() in shown.lower() else address


def _is_pixel(found: dict[str, str]) -> bool:
    return found.get("width", "").strip() in ("0", "1") and found.get("height", "") in ("0", "1")


def _declarations(style: str) -> str:
    """Return the value of a style attribute, without comments and repeated blanks."""
    if not style:
        return ""
    style = _unescaped(style[: 2 * MAX_STYLE_CHARS])[:MAX_STYLE_CHARS]
    return _BLANKS.sub(" ", _STYLE_COMMENT.sub("", style))


def _is_hidden(name: str, found: dict[str, str], style: str) -> bool:
    if name in _SKIPPED or "hidden" in found:
        return True
    if name == "input" or not style:
        return False
    return bool(_HIDDEN.search(style)) or bool(_OVERFLOW.search(style) and _CLIPPED.search(style))


def _is_tiny(name: str, found: dict[str, str], style: str, *, around: bool) -> bool:
    """Return True if text has the size 0. An element within has the size around, or its own."""
    size = _SIZE.search(style) if "font" in style.lower() else None
    if size is not None:
        return size["zero"] is not None
    return around and not (name == "font" and "size" in found)


@dataclass(slots=True)
class _Styles:
    """The classes and ids that the HTML's own style sheets hide.

    Only rules with one class or id count, outside of `@media` and the like. A class that another
    rule shows is not hidden.
    """

    hidden: set[str] = field(default_factory=set)
    shown: set[str] = field(default_factory=set)
    count: int = 0

    def read(self, sheet: str) -> None:
        """Take the text of a style element."""
        if "none" not in sheet.lower() or self.count >= MAX_RULES:
            return
        sheet = _BLANKS.sub(" ", _STYLE_COMMENT.sub(" ", sheet[:200_000]))
        sheet = sheet.replace("<!--", " ").replace("-->", " ")
        for rule in _AT_RULE.sub(" ", sheet).split("}"):
            selectors, _, declarations = rule.partition("{")
            self.count += 1
            if (display := _DISPLAY.search(declarations)) is None:
                continue
            for selector in selectors[:5_000].split(","):
                if not display[1]:
                    self.shown.update(_NAMED.findall(selector))
                elif simple := _SIMPLE.match(selector):
                    self.hidden.add(simple[1])
            if self.count >= MAX_RULES:
                return

    def hide(self, found: dict[str, str], style: str) -> bool:
        """Return True if an element with these attributes is hidden."""
        if not self.hidden or (style and (own := _DISPLAY.search(style)) and not own[1]):
            return False
        names = {f".{name}" for name in found.get("class", "")[:1_000].split()}
        names.add(f"#{found.get('id', '')}")
        return bool(names & self.hidden) and not names & self.shown


def _attributes(source: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for count, match in enumerate(_ATTRIBUTE.finditer(source[:100_000])):
        name = match[1].lower()
        if name in _NEEDED and name not in found:
            found[name] = match[2] or match[3] or match[4] or ""
        if count > 200:
            break
    return found


def text_of_html(source: str, max_tokens: int = MAX_TOKENS) -> HtmlText:
    """Convert HTML to text: a line for each block, cells apart, links with their address.

    Hidden elements, comments, scripts and styles are left out. The time is linear in the source.
    """
    reader = _Reader()
    is_cut = False
    position = count = unclosed = 0
    pattern = _TOKEN
    while (token := pattern.match(source, position)) is not None:
        position, count = token.end(), count + 1
        if count > max_tokens:
            is_cut = True
            break
        if token[0][0] == "<" and token[2] is None and token[0][1:2].isalpha():
            unclosed += 1
            pattern = _LENIENT if unclosed == MAX_UNCLOSED else pattern
        name = (token[2] or token[1] or "").lower()
        if token[2]:
            if name in _RAW:
                # Their content is not markup; without an end, the rest belongs to them.
                end = _RAW[name].search(source, position)
                position = end.end() if end else len(source)
                if name == "style" and end and not reader.hidden:
                    reader.styles.read(source[token.end() : end.start()])
            elif name == "plaintext":
                reader.out.text(source[token.end() :], pre=True)
                break
            else:
                reader.start(name, token[3] or "")
        elif token[1]:
            reader.end(name)
        elif not reader.hidden and not reader.tiny and (token[0][0] != "<" or token[0] == "<"):
            words = _unescaped(token[0]) if "&" in token[0] else token[0]
            reader.out.text(words.replace("\x01", ""), pre=bool(reader.pre))
    reader.out.end_line()
    lines = [line.replace("\x01", "") for line in reader.out.lines]
    return HtmlText(clean(_tidy("\n".join(lines))), is_cut, count)


def _tidy(text: str) -> str:
    text = _LONE.sub("", _PADDING.sub(" ", text))
    text = text.replace("\u00ad", "").replace("\ufeff", "")
    text = text.replace("\u00a0", " ")
    text = "\n".join(line.rstrip(" \t") for line in text.split("\n"))
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n").strip()
