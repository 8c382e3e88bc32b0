"""Find sentences that are not plain English: `python tools/prose.py [PATH ...]`.

The linter reads Markdown, docstrings, comments, message strings and templates. The rules are in
`prose.toml` beside it. It prints `path:line: rule: "words"; advice` for each finding and exits
with 1 if there is one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

from prose_text import CODE, Passage, passages

ROOT = Path(__file__).resolve().parent.parent
RULES = Path(__file__).with_name("prose.toml")


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that a passage breaks."""

    path: str
    line: int
    rule: str
    words: str
    advice: str

    def __str__(self) -> str:
        return f'{self.path}:{self.line}: {self.rule}: "{self.words}"; {self.advice}'


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern that plain texts do not contain."""

    name: str
    pattern: re.Pattern[str]
    advice: str
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Allowed:
    """Passages that may break a rule, with the reason."""

    path: str
    rule: str
    words: str
    reason: str

    def covers(self, finding: Finding) -> bool:
        """Return True if this row allows the finding."""
        return (
            fnmatch(finding.path, self.path)
            and self.rule in {"*", finding.rule}
            and self.words.lower() in finding.words.lower()
        )


@cache
def _tables() -> dict[str, Any]:
    return tomllib.loads(RULES.read_text(encoding="utf-8"))


@cache
def rules() -> tuple[Rule, ...]:
    """Return the rules of `prose.toml`."""
    return tuple(
        Rule(
            name,
            re.compile(pattern, 0 if rule.get("case") else re.IGNORECASE),
            rule["advice"],
            tuple(rule.get("kinds", ())),
        )
        for name, rule in _tables()["rules"].items()
        for pattern in rule["patterns"]
    )


@cache
def allowed() -> tuple[Allowed, ...]:
    """Return the allow-list of `prose.toml`."""
    return tuple(
        Allowed(row["path"], row.get("rule", "*"), row.get("words", ""), row["reason"])
        for row in _tables()["allowed"]
    )


_END = re.compile(r"(?<=[.!?])[)\"']*\s+(?=[A-Z0-9(\"'])|\s[·|]\s")
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|etc|vs|cf)\.", re.IGNORECASE)
_CODE = re.compile(r"[{}<>=;]|::|\bimport\b|\b(?:int|text|bool), ")
"""Marks a string that holds code: no sentence, and so no length."""
_WORD = re.compile(r"[^\W_][\w'\u2019.-]*")


def judge(passage: Passage, path: str = "") -> Iterator[Finding]:
    """Yield what the rules find in one passage."""
    for rule in rules():
        if rule.kinds and passage.kind not in rule.kinds:
            continue
        for match in rule.pattern.finditer(passage.text):
            yield Finding(path, passage.line, rule.name, match[0].strip(), rule.advice)
    if passage.kind == "string" and _CODE.search(passage.text):
        return
    limit = _tables()["sentence"]["words"]
    for sentence in _END.split(_ABBREVIATION.sub(CODE, passage.text)):
        count = len(_WORD.findall(sentence))
        if count > limit:
            start = " ".join(sentence.split()[:8])
            yield Finding(
                path, passage.line, "long", f"{start} …", f"{count} words, at most {limit}"
            )


def check(paths: Iterable[Path]) -> list[Finding]:
    """Judge files, and leave out what the allow-list covers."""
    findings = []
    for path in paths:
        name = path.relative_to(ROOT).as_posix()
        for passage in passages(path):
            findings += [
                finding
                for finding in judge(passage, name)
                if not any(row.covers(finding) for row in allowed())
            ]
    return sorted(findings, key=lambda finding: (finding.path, finding.line))


_GIT = shutil.which("git") or "git"


def files(folders: Sequence[str] = ()) -> list[Path]:
    """List the files that Git tracks or would add, below `folders` or everywhere."""
    listed = subprocess.run(
        [_GIT, "ls-files", "-co", "--exclude-standard", "--", *folders],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    skipped = _tables()["files"]["skip"]
    return [
        ROOT / name
        for name in sorted(set(listed))
        if (ROOT / name).is_file() and not any(fnmatch(name, pattern) for pattern in skipped)
    ]


def main(folders: Sequence[str]) -> int:
    """Print the findings below `folders`; return 1 if there are any."""
    findings = check(files(folders))
    for finding in findings:
        print(finding)
    print(f"{len(findings)} findings")
    return int(bool(findings))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
