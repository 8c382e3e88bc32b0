"""Lines of a listing that name no file: totals, headings and rules."""

from __future__ import annotations

import re

_NUMBER = r"\d[\d.,]*[ ]?[KMGTkmgt]?i?[Bb]?"
_TOTALS = (
    r"(?:totale?n?|totalt|insgesamt|gesamt|razem|celkem|spolu|toplam|osszesen|yhteens\S+|itogo"
    r"|i alt|totaal|sammenlagt|samtals|ukupno|skupaj|kokku|kopa|viso|suma|jumlah|tong"
    r"|\S*[\x80-\xff]\S*)"
)
_SUMMARIES = [
    re.compile(pattern, re.ASCII | re.IGNORECASE)
    for pattern in (
        rf"{_TOTALS}(?: of)?:? ?{_NUMBER}",
        r"(?:grand )?total of \d+ (?:files?|director|blocks?).*",
        r"\*\.\*;\d*[ ]+<?%rms-.*",
        r"[a-z0-9$_-]+:(?:\[[^\]]*\])?",
        r"filename[ ]+filetype[ ]+fm[ ]+format.*",
        r"[\d.,]+ (?:file|dir)\(?s?\)? .*",
        # The totals, the folder, the drive and the serial number of `dir`, in any language.
        r"[\d.,]+ \S{2,20}\([a-z]{1,3}\),?[ ]+[\d.,\xa0\xff ]+[^\d]+",
        r"[^\W\d]\S+(?: \S+){0,5} [a-z]:(?:\\.*|[ ].*)?",
        r"[^\W\d][^\d]{5,60} [0-9A-F]{4}-[0-9A-F]{4}",
        r"[\d.,]+ files?",
        r"total:? \d+ files?.*",
        r"(?:volume in drive|volume serial number|directory of|directory:?) ?.*",
        r"volume[ ]+unit[ ]+(?:date|referred)[ ].*",
        r"name[ ]+(?:vv\.mm|size[ ]+ttr)[ ].*",
        r"jobname[ ]+jobid[ ].*",
        r"size[ ]+date[ ]+time[ ]+name.*",
        r"(?:file[ ]+code|code)[ ]+eof[ ]+last modification.*",
        r"owner[ ]+last modified[ ]+attributes.*",
        r"[-=_ ]{3,}",
        r"(?:%direct-w-nofiles, )?no (?:files?|members?|data ?sets?|jobs?) (?:were )?found"
        r"(?: on jes queue)?\.?",
        r"ftp[ ]*\(.*\) .*",
        r"files: \d+,?[ \xa0]+blocks: \d+",
        r"(?:dirs|links): \d+",
        r"volume - drive \d+:",
        r"file name[ ]+size[ ]+date[ ].*",
        r"(?:\.[ ]+)?\d+ bytes (?:available|- .*)",
        r"value = \d+ = 0x[0-9a-f]+",
        r"total number of \w+(?: listed)?: \d+",
    )
]
_FIRST = re.compile(rf"[^\s\d]{{2,24}}(?: [^\s\d]{{1,12}})?:? {_NUMBER}", re.ASCII)
_MEMBERS = re.compile(r"[ ]*name[ ]+(?:vv\.mm|size[ ]+ttr)[ ]", re.ASCII | re.IGNORECASE)


def is_summary(line: str, is_first: bool = False) -> bool:
    """Return True if a line is blank, a total, a heading or a rule.

    Args:
      line: The line, decoded as latin-1.
      is_first: True for the first line of a listing. `ls` writes its total there, in the server's
        language; one or two words and a number are then a total. Default: False.
    """
    text = line.strip(" \t\r")
    if not text or any(pattern.fullmatch(text) for pattern in _SUMMARIES):
        return True
    return is_first and _FIRST.fullmatch(text) is not None


def heads_members(line: str) -> bool:
    """Return True if members of an MVS dataset follow this heading."""
    return _MEMBERS.match(line) is not None
