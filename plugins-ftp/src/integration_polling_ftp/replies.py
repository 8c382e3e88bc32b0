"""The meanings of replies. A code alone is ambiguous: servers use 421, 530 and 550 for many things.

RFC 959, section 4.2 defines the codes; RFC 2228, section 5 and RFC 4217 those of TLS. The texts are
those of vsftpd, ProFTPD, pure-ftpd, FileZilla, IIS, Serv-U, wu-ftpd, Titan, CrushFTP, glFTPd and
others.
"""

from __future__ import annotations

import re
from enum import StrEnum


class Meaning(StrEnum):
    """The meaning of a reply."""

    OK = "ok"
    """The command succeeded or continues: 1xx, 2xx or 3xx."""
    EMPTY = "empty"
    """The directory has no entries."""
    GONE = "gone"
    """The server does not find the path."""
    REFUSED = "refused"
    """The server refuses the path, or does not say why it fails."""
    BUSY = "busy"
    """The file is in use, or cannot be read at the moment."""
    RETRY = "retry"
    """The server has a temporary problem."""
    LIMIT = "limit"
    """There are too many connections."""
    LOST = "lost"
    """The server ended the session or its login."""
    TLS_REQUIRED = "TLS required"
    """The server accepts encrypted sessions only."""
    SETUP = "setup"
    """The server or the account must be set up differently; the password is not the fault."""
    CREDENTIALS = "credentials"
    """The server rejects the login."""
    UNSUPPORTED = "unsupported"
    """The server does not know the command or its parameter."""
    PERMANENT = "permanent"
    """The command fails for another reason."""


NOT_IMPLEMENTED = ("500", "501", "502", "504")
_LOGIN = ("", "USER", "PASS", "ACCT", "AUTH")
_LIMIT_CODES = ("500", "503", "530", "550", "553")
_LISTINGS = ("", "LIST", "NLST", "MLSD", "STAT")


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_ATTEMPTS = _words(
    r"attempt",
    r"\btries\b",
    r"(login|auth\w*) (failure|error)",
    r"incorrect",
    r"(bad|failed|invalid|wrong) (login|password|auth)",
)
_LIMIT = _words(
    r"\btoo many\b(?! (open )?files| levels| arguments| param| symbolic)",
    r"\bmax(imum|\.)?\b.{0,60}\b(connection|client|user|session|login|host|instance|download|transfer)",
    r"\b(connection|client|user|session|login|host|download|transfer)s?\b.{0,60}\bmax(imum)?\b",
    r"\b(connection|client|user|session|login|thread)s?('s)?[ -]*(count )?(limit|quota)s?\b",
    r"\blimit (of|on|for|to)\b.{0,40}\b(connection|client|user|session|login|download|transfer)",
    r"(can('|no)?t|unable to|not|no longer) accept(ing)? (any )?(more|new|further|connection)",
    r"(?<!address )\balready in use\b",
    r"can only have \d+",
    r"no more (connection|client|user|session|login)s",
    r"no more than \d+",
    r"already (logged (in|on)|connected)",
    r"there are already \d+",
    r"overload",
    r"(server|site|ftp) (is )?(currently )?full\b",
    r"\b(slots?|lines) (are )?(full|in use|taken)",
    r"no (free )?(\w+ )?slots",
    r"simultaneous|concurrent",
    r"(exceed|reach)\w*.{0,30}\b(connection|session|login|user|client|licen[cs]e)",
    r"\b(connection|session|login|user|client|licen[cs]e)s?\b.{0,30}\b(exceed|reach)",
    r"restricted to \d+",
    r"\bonly (\d+|one|two|a single) .{0,20}\b(session|connection|login|user|client)",
    r"multiple (login|connection|session)s",
    r"\bper[- ](ip|user|host|account)\b.{0,20}\blimit",
    r"try (again )?later, (server|too)",
    r"server (is )?(too )?busy",
    r"zu viele",
    r"trop d",
    r"demasiad[ao]s",
    r"troppi",
    r"muit[ao]s (conex|usu|client)",
    r"te veel",
    r"za du\u017co",
    r"p\u0159\u00edli\u0161 mnoho",
    r"f\u00f6r m\u00e5nga",
    r"\u00e7ok fazla",
    r"\u592a\u591a",
    r"\u8fc7\u591a",
    r"\u904e\u591a",
    r"\u591a\u3059\u304e",
    r"\u0441\u043b\u0438\u0448\u043a\u043e\u043c \u043c\u043d\u043e\u0433\u043e",
)
_TLS = _words(
    r"encrypt",
    r"\btls",
    r"\bssl\b",
    r"\bftps\b",
    r"secure (connection|control|session|auth|login)",
    r"(insecure|plain[ -]?text|clear[ -]?text|unencrypted)",
    r"not secured?\b",
    r"\buse auth\b",
    r"authentication before",
)
_MUST = _words(
    r"require",
    r"\bmust\b",
    r"\bonly\b",
    r"\buse\b",
    r"\bneed",
    r"policy",
    r"not allowed",
    r"refus",
    r"mandatory",
    r"enforced",
    r"disabled",
    r"not (permitted|accepted)",
    r"denied",
    r"forbidden",
    r"(insecure|plain|clear|unencrypted)",
    r"not secured?\b",
    r"\bplease\b",
    r"sorry",
    r"expected",
    r"rejected",
    r"first\b",
)
_UNAVAILABLE_TLS = _words(
    r"\b(tls|ssl|ftps|auth|encryption|security)\b[^.,;]{0,30}"
    r"(not (supported|implemented|understood|available|enabled|configured)|unsupported|unknown)",
    r"(unsupported|unknown|unrecogni\w+)[^.,;]{0,30}\b(tls|ssl|auth|security)\b",
)
_UNKNOWN_SECURITY = _words(
    r"not (supported|implemented|understood|available|enabled|configured)",
    r"unsupported",
    r"unknown",
    r"unrecogni",
)
_HOME = _words(
    r"home[ -]?dir",
    r"home folder",
    r"root dir",
    r"user directory",
    r"login dir",
    r"(cannot|can't|could not|unable to|failed to) (change|access|open|chdir|set|switch|enter)\b"
    r".{0,30}(dir|chroot|privilege|anonymous)",
    r"no directory",
    r"chroot",
    r"user cannot log in.*director",
    r"invalid shell",
)
_LOST_OOPS = _words(
    r"child died",
    r"priv_sock",
    r"vsf_sysutil_(recv|read|write)",
    r"\bfork\b",
    r"no data",
    r"timed? ?out",
    r"die\b",
)
_NOT_LOGGED_IN = _words(
    r"log ?in with",
    r"not logged",
    r"log ?in first",
    r"login required",
    r"\bUSER\b.{0,20}\b(first|PASS)",
    r"session (has )?(expired|timed)",
    r"not authenticated",
    r"please log ?in",
    r"must (first )?log",
)
_ACCOUNT = _words(r"need account", r"\bACCT\b", r"account (information )?(is )?(needed|required)")
_SERVER_FAULT = _words(
    r"temporar",
    r"try (it )?(again|later)",
    r"internal (server )?error",
    r"unavailable",
    r"\bbackend\b",
    r"database",
    r"(cannot|can.t|could not|unable to|failed to) (connect|contact|reach)",
    r"(not|un)[ -]?reachable",
    r"not respond",
    r"\b(is|server) down\b",
    r"timed? ?out",
    r"shutting down",
    r"at this time",
    r"time of day",
    r"maintenance",
)
_BANNED = _words(
    r"\bban(ned)?\b",
    r"\bblock(ed)?\b",
    r"blacklist",
    r"(your|this) (ip|address|host)\b",
    r"from (your|this) (ip|address|host|location)",
    r"unauthori[sz]ed (ip|address|host)",
    r"\bip( address)? (is )?not (allowed|permitted|authori[sz]ed)",
)
_EMPTY = _words(
    r"\bno (files?|members?|jobs?|data ?sets?|matching files?|entries|file\(s\))"
    r"( or director(y|ies))?( were| are| is)?"
    r" ?(found|match\w*|exists?|present|in|here|available|$|\.)",
    r"\b(directory|folder|dir|library|data ?set)\b ?(\S+ )?(is )?empty",
    r"\bempty (directory|folder|library)",
    r"w-nofiles",
    r"nothing to list",
    r"0 files found",
    r"no (objects|items) (found|match)",
    r"\bno match\b",
    r"keine dateien",
    r"aucun (fichier|\u00e9l\u00e9ment)",
    r"(ning\u00fan|no hay) (archivo|fichero)",
    r"nessun file",
    r"nenhum (arquivo|ficheiro)",
    r"geen bestanden",
    r"\u0444\u0430\u0439\u043b\S* \u043d\u0435 \u043d\u0430\u0439\u0434\u0435\u043d\u044b",
    r"\u6ca1\u6709\u6587\u4ef6",
    r"\u30d5\u30a1\u30a4\u30eb\u304c\u3042\u308a\u307e\u305b\u3093",
)
_BUSY = _words(
    r"used by another",
    r"being (used|written|uploaded|received|accessed|modified|transferred|processed)",
    r"\bin use\b",
    r"\blocked\b",
    r"(cannot|can.t|could not|unable to|failed to) lock\b",
    r"\bbusy\b",
    r"sharing violation",
    r"timed? ?out",
    r"temporar",
    r"try (it )?(again|later)",
    r"broken pipe",
    r"connection (reset|closed|aborted|lost|refused)",
    r"too many open",
    r"stale",
    r"i/o error",
    r"input/output",
    r"unable to (lock|access)\b.*moment",
    r"another (client|user|process|program)",
    r"host is down",
    r"no route",
    r"out of memory",
    r"cannot allocate",
    r"not enough .{0,10}(memory|resources|storage)",
    r"network (error|is)",
    r"upload in progress",
    r"in progress",
    r"internal error",
    r"interrupted",
    r"deadlock",
    r"no buffer space",
    r"still (open|being)",
    r"no space left",
    r"data connection",
    r"section open",
    r"not connected",
    r"server error",
    r"slow ?down",
    r"request rate",
    r"\bquota\b",
    r"(cannot|can.t|could not|unable to|failed to) connect\b",
    r"\boffline\b",
    r"insufficient (system )?resources",
    r"(host|server) (is )?unavailable",
    r"\bnetwork (name|path|location)",
    r"anderen (prozess|programm|benutzer)",
    r"(autre|otro|outro|altro|annan|annen|ander) (proc|prog|utilis|usu|utent)",
    r"\u0434\u0440\u0443\u0433\u0438\u043c \u043f\u0440\u043e\u0446\u0435\u0441\u0441\u043e\u043c",
    r"\u53e6\u4e00(\u4e2a|\u500b)?(\u7a0b\u5e8f|\u8fdb\u7a0b|\u7a0b\u5f0f)",
    r"\u5225\u306e\u30d7\u30ed\u30bb\u30b9",
)
_NETWORK = _words(r"\bnetwork (name|path|location)")
_GONE = _words(
    r"no ?such",
    r"\bnot (be )?found\b",
    r"(does|do|did)( not|n.t) exist",
    r"\bnot exist",
    r"\b(cannot|can.t|could( not|n.t)|unable to) (find|locate|stat)\b",
    r"no longer",
    r"\bunknown (file|dir|path)",
    r"non-?existent",
    r"doesnt exist",
    r"invalid (path|directory|file ?name|file name)",
    r"\bnot +(a +)?(valid|plain|regular)? ?(file|directory)",
    r"introuvable",
    r"n.existe pas",
    r"nicht (gefunden|finden)",
    r"existiert nicht",
    r"no existe",
    r"non esiste",
    r"no se (ha )?encontr",
    r"no (se )?(puede|pudo) encontrar",
    r"impossible (de )?trouver",
    r"non trovat",
    r"impossibile trovare",
    r"niet (gevonden|vinden)",
    r"nie (mo\u017cna odnale\u017a\u0107|znaleziono|istnieje)",
    r"(hittades|finns) inte|inte att hitta",
    r"n.o (existe|encontrad|pode encontrar|foi poss.vel (encontrar|localizar))",
    r"(ne(lze|m\u016f\u017ee) nal\u00e9zt|nenalezen|neexistuje)",
    r"nem tal\u00e1l",
    r"(bulunamad|bulam\u0131yor)",
    r"\ucc3e\uc744 \uc218 \uc5c6",
    r"\u4e0d\u5b58\u5728",
    r"\u627e\u4e0d\u5230",
    r"\u898b\u3064\u304b",
    r"\u043d\u0435 \u043d\u0430\u0439\u0434\u0435\u043d",
    r"\u043d\u0435 \u0443\u0434\u0430\S+ \u043d\u0430\u0439\u0442\u0438",
    r"\u043d\u0435 \u0441\u0443\u0449\u0435\u0441\u0442\u0432\u0443\u0435\u0442",
)
_DENIED = _words(
    r"denied",
    r"permission",
    r"not (allowed|permitted|authori[sz]ed)",
    r"forbidden",
    r"insufficient",
    r"privilege",
    r"access is",
    r"no access",
)
_UNKNOWN_COMMAND = _words(
    r"not (supported|implemented|understood|recogni[sz]ed)",
    r"(unknown|unrecogni[sz]ed|invalid|illegal|bad) command",
    r"unsupported command",
    r"command .{0,20}(disabled|unknown)",
)
_CHARSETS = ("utf-8", "gbk", "cp932", "cp1251", "cp1250", "cp1254")
MAX_TEXT = 2000
"""The number of characters of a reply that count for its meaning."""


_TLS_REUSE = _words(
    r"(tls|ssl) session.{0,40}(resum|reus)",
    r"(resum|reus|cached)\w* (tls|ssl) session",
    r"session reuse required",
)


def classify(reply: str, command: str = "") -> Meaning:
    """Return the meaning of a reply.

    Args:
      reply: The code and the text; a reply of several lines has line breaks.
      command: The command that it answers, such as `RETR /a`. Default: any command of a login or
        a listing.
    """
    reply = reply[:MAX_TEXT]
    code, verb = reply[:3], command.partition(" ")[0].upper()
    text = _readings(_without_path(reply[3:], "" if verb in _LOGIN else command))
    if not re.fullmatch(r"[1-6]\d\d", code, re.ASCII):
        return Meaning.PERMANENT
    if code[0] in "123" and code not in ("331", "332"):
        return Meaning.OK
    if code in ("331", "332", "532"):
        return _of_question(code, verb)
    if "OOPS" in text:
        return Meaning.LOST if _LOST_OOPS.search(text) else Meaning.SETUP
    special = _of_session(code, text, verb)
    if special is not None:
        return special
    return _of_path(code, text, verb)


def _of_question(code: str, verb: str) -> Meaning:
    """A question after the password is one that an account cannot answer."""
    if code == "331":
        return Meaning.OK if verb == "USER" else Meaning.CREDENTIALS
    return Meaning.SETUP


def _of_session(code: str, text: str, verb: str) -> Meaning | None:
    """Return the meaning of a reply about the session; None if it is about a path."""
    if verb in ("AUTH", "PBSZ", "PROT") and (
        code in NOT_IMPLEMENTED or _UNKNOWN_SECURITY.search(text)
    ):
        return Meaning.UNSUPPORTED
    if verb == "AUTH" and code in ("431", "451"):
        return Meaning.RETRY  # a resource is missing at the moment (RFC 2228, section 5)
    if _is_limit(code, text):
        return Meaning.LIMIT
    if _needs_tls(code, text):
        return Meaning.TLS_REQUIRED
    if code == "522" or (code in ("425", "450", "550") and _TLS_REUSE.search(text)):
        return Meaning.SETUP
    if code == "421":
        return Meaning.SETUP if _HOME.search(text) else Meaning.LOST
    if code == "503" or (code == "550" and verb not in ("USER", "PASS")):
        return Meaning.LOST if _NOT_LOGGED_IN.search(text) and verb != "PASS" else None
    if code in ("530", "430", "431") or verb == "PASS":
        return _of_login(code, text, verb)
    return None


def _of_login(code: str, text: str, verb: str) -> Meaning | None:
    if verb not in _LOGIN:
        if _DENIED.search(text):
            return Meaning.REFUSED
        return Meaning.LOST if code == "530" else None
    if _HOME.search(text):
        return Meaning.SETUP
    if _ACCOUNT.search(text):
        return Meaning.SETUP
    if _SERVER_FAULT.search(text) and not _ATTEMPTS.search(text):
        return Meaning.RETRY
    if _BANNED.search(text) and not _ATTEMPTS.search(text):
        return Meaning.SETUP
    if code in ("530", "430", "431", "535"):
        return Meaning.CREDENTIALS
    return None


def _is_limit(code: str, text: str) -> bool:
    if code in ("451", "452") or (code[0] == "5" and code not in _LIMIT_CODES):
        return False
    if _ATTEMPTS.search(text) or not _LIMIT.search(text):
        return False
    return code != "550" or not (_GONE.search(text) or _BUSY.search(text))


def _needs_tls(code: str, text: str) -> bool:
    if code in ("533", "534", "521"):
        return True
    if code not in ("421", "500", "503", "504", "522", "530", "536", "537", "550", "553", "431"):
        return False
    if not _TLS.search(text) or _GONE.search(text) or _UNAVAILABLE_TLS.search(text):
        return False
    if code == "522" and _TLS_REUSE.search(text):
        return False
    return _MUST.search(text) is not None and not _names_path(code, text)


def _names_path(code: str, text: str) -> bool:
    """Return True if a 550 has words of TLS only in the name of its file."""
    if code not in ("550", "553"):
        return False
    return _TLS.search(re.sub(r"\S*[/\\.]\S+", "", text.replace("SSL/TLS", "TLS"))) is None


def _of_path(code: str, text: str, verb: str) -> Meaning:
    if code in ("450", "550", "451", "553", "500") and _EMPTY.search(text):
        return Meaning.EMPTY if verb in _LISTINGS else Meaning.GONE
    if code in ("450", "550", "553") and _NETWORK.search(text):
        return Meaning.BUSY
    if code in ("450", "550", "553") and _GONE.search(text):
        return Meaning.GONE
    if code[0] == "4":
        return Meaning.BUSY if code == "450" else Meaning.RETRY
    if code in NOT_IMPLEMENTED:
        return Meaning.UNSUPPORTED
    if code in ("551", "552"):
        return Meaning.RETRY
    if code in ("550", "553", "554"):
        if _BUSY.search(text):
            return Meaning.BUSY
        if _UNKNOWN_COMMAND.search(text):
            return Meaning.UNSUPPORTED
        return Meaning.REFUSED
    return Meaning.PERMANENT


def _without_path(text: str, command: str) -> str:
    """Return the text without the path of the command: a file may be called "busy"."""
    path = command.partition(" ")[2]
    for name in filter(None, (path, path.rpartition("/")[2])):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "", text)
    for quote in ('"', "'"):
        if text.count(quote) >= 2 and "/" in text:
            start, end = text.find(quote), text.rfind(quote)
            text = text[:start] + text[end + 1 :]
    return text


def readable(reply: str) -> str:
    """Return a reply for people: as UTF-8 if it is valid UTF-8."""
    try:
        return reply.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return reply


def _readings(text: str) -> str:
    """Return the readings of a text in the charsets of servers, one below the other."""
    if text.isascii():
        return text
    try:
        raw = text.encode("latin-1")
    except UnicodeEncodeError:
        return text
    readings = [raw.decode(charset, "replace") for charset in _CHARSETS]
    return "\n".join([text, *readings])
