"""The text of `markdown` blocks as people see it. They have standard Markdown, not `mrkdwn`.

Mentions are rendered in prose, as Slack does; the documentation does not name them. `<!date^…>` and
labels in `<…>` are not markup there.

Source: https://docs.slack.dev/reference/block-kit/blocks/markdown-block
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from integration_polling_slack import emoji, mrkdwn
from integration_polling_slack.emphasis import MARK, unmarked
from integration_polling_slack.mrkdwn import Name, linked

BULLETS = "•◦■"
"""The bullets by depth. The search takes `▪`, which Slack shows, for an emoji with a name."""

_INLINE = re.compile(
    r"\\(?P<escaped>[\\`*_{}\[\]()#+.!&<>|~-])"
    r"|``(?P<double>[^`\n]+(?:`[^`\n]+)*)``|`(?P<code>[^`\n]+)`"
    r"|!?\[(?P<label>[^\[\]\n]*)\]\((?P<target>[^()\s]*(?:\([^()\s]*\)[^()\s]*)*)"
    r"(?:\s+\"[^\"\n]*\")?\)"
    r"|<(?P<mention>[@#][A-Z0-9]{2,64}(?:\|[^<>\n]*)?|!(?:here|channel|everyone)(?:\|[^<>\n]*)?"
    r"|!subteam\^[A-Z0-9]+(?:\|[^<>\n]*)?)>"
    r"|<(?P<address>[a-z][a-z0-9+.-]{1,31}:[^\s<>]*|[^\s<>@]+@[^\s<>@]+)>"
    rf"|{emoji.PATTERN}|{MARK}"
)
_MARKS = ("*", "**", "***", "_", "__", "___", "~", "~~")
_WITHIN_WORDS = ("*", "**", "***", "~~")

_FENCE = re.compile(r"\s*(?P<fence>`{3,}|~{3,})[^`]*")
_DIVIDER = re.compile(r"\s*([-*_])(?:[ \t]*\1){2,}[ \t]*")
_HEADING = re.compile(r"\s{0,3}#{1,6}\s+(?P<words>.*)")
_QUOTE = re.compile(r"\s*(?P<marks>(?:>[ ]?)+)(?P<words>.*)")
_ITEM = re.compile(r"(?P<indent>\s*)(?:[-*+]|(?P<number>\d{1,9})[.)])\s+(?P<words>.*)")
_TASK = re.compile(r"\[(?P<done>[ xX])\]\s+(?P<words>.*)")
_RULE = re.compile(r"\s*:?-+:?\s*")
_CELL = re.compile(r"(?<!\\)\|")


def shown(text: str, name: Name) -> str:
    """Return the text of Markdown.

    Args:
      text: The Markdown.
      name: Returns the names of people, channels and groups.
    """
    return "\n".join(_Reader(name).lines(text.split("\n"))).strip("\n")


class _Reader:
    """Renders one text, line by line."""

    def __init__(self, name: Name) -> None:
        self._name = name
        self._indents: list[int] = []
        """The indentations of the list items around the present line."""

    def lines(self, lines: list[str]) -> Iterator[str]:
        fence, in_table = "", False
        for number, line in enumerate(lines):
            found = _FENCE.fullmatch(line)
            if fence:
                is_end = found and found["fence"].startswith(fence) and line.strip("`~ \t\r") == ""
                fence = "" if is_end else fence
                if not is_end:
                    yield line
                continue
            following = lines[number + 1] if number + 1 < len(lines) else ""
            in_table = "|" in line and (in_table or _is_rule(following))
            if found:
                fence = found["fence"]
            elif in_table and not _is_rule(line):
                yield self._row(line)
            elif not in_table and not _DIVIDER.fullmatch(line):
                yield self._line(line)

    def _line(self, line: str) -> str:
        if found := _ITEM.fullmatch(line):
            return self._item(found)
        if line.strip() and not line[:1].isspace():
            self._indents.clear()
        if found := _HEADING.fullmatch(line):
            return self._inline(found["words"].rstrip().rstrip("#").rstrip())
        if found := _QUOTE.fullmatch(line):
            return "> " * found["marks"].count(">") + self._line(found["words"])
        return self._inline(line)

    def _item(self, found: re.Match[str]) -> str:
        """Return an item of a list; its depth follows from the items above it."""
        indent = len(found["indent"].expandtabs(4))
        while self._indents and self._indents[-1] >= indent:
            self._indents.pop()
        depth = len(self._indents)
        self._indents.append(indent)
        words, number = found["words"], found["number"]
        mark = f"{number}." if number else BULLETS[depth % 3]
        if task := _TASK.fullmatch(words):
            mark, words = "☐" if task["done"] == " " else "✓", task["words"]
        return f"{'    ' * depth}{mark} {self._inline(words)}"

    def _row(self, line: str) -> str:
        return " | ".join(self._inline(cell.strip()) for cell in _cells(line))

    def _inline(self, text: str) -> str:
        return mrkdwn.unescaped(self._unmarked(text))

    def _unmarked(self, text: str) -> str:
        return unmarked(text, _INLINE, self._token, _MARKS, _WITHIN_WORDS)

    def _token(self, found: re.Match[str]) -> str:
        """Return the text for a token, escaped where it is literal."""
        literal = found["escaped"] or found["code"] or (found["double"] or "").strip()
        if literal:
            return mrkdwn.escaped(literal)
        if (target := found["target"]) is not None:
            return linked(self._unmarked(found["label"]), target)
        if (mention := found["mention"]) is not None:
            return mrkdwn.reference(mention, self._name)
        address = found["address"]
        return emoji.matched(found) if address is None else linked("", address)


def _cells(line: str) -> list[str]:
    return _CELL.split(line.strip().removeprefix("|").removesuffix("|"))


def _is_rule(line: str) -> bool:
    """Return True if a line separates the heads of a table from its rows."""
    return "|" in line and all(map(_RULE.fullmatch, _cells(line)))
