"""Charsets of mail: labels, supersets, and wrong labels.

Labels follow the WHATWG Encoding Standard (https://encoding.spec.whatwg.org/#names-and-labels),
which maps each label to the superset that senders mean. Mail also uses UTF-7 and the DOS code
pages. No function raises.
"""

from __future__ import annotations

import codecs
import encodings
import pkgutil
import re
from dataclasses import dataclass, field
from encodings import aliases
from functools import lru_cache
from itertools import chain
from typing import Literal

import chardet
import webencodings

from core.mail.budget import BYTES_OF_GUESS, STEPS_OF_GUESS, Budget

How = Literal["declared", "bom", "meta", "utf-8", "detected", "default"]

DETECTED_BYTES = 4_096
"""The number of bytes that the detector reads: of the lines that are not ASCII."""

REFUSED = frozenset(
    {"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "mbcs", "oem"}
)
"""Python codecs that mail does not use as charsets; some take quadratic time."""

_CODECS = frozenset(aliases.aliases) | {
    module.name for module in pkgutil.iter_modules(encodings.__path__)
}
"""The names that Python knows. It keeps each other name that it looked up, forever."""

_SUPERSETS = {
    "euc-kr": ("cp949",), "gb2312": ("gb18030",), "gbk": ("gb18030",), "big5": ("cp950",
    "big5hkscs"), "shift_jis": ("cp932", "shift_jis_2004"), "euc-jp": ("euc_jp", "euc_jis_2004"),
    "iso-2022-jp": ("iso2022_jp_2", "iso2022_jp_ext", "iso2022_jp_2004"),
    "iso-8859-8-i": ("iso8859_8",), "x-mac-cyrillic": ("mac_cyrillic",),
    "macintosh": ("mac_roman",),
    "windows-874": ("cp874",), "x-user-defined": (), "replacement": (),
}  # fmt: skip
_UNKNOWN = frozenset({"", "unknown", "unknown-8bit", "x-unknown", "8bit", "7bit", "binary", "none",
    "default", "default_charset", "x-user-defined", "base64", "us-ascii", "ascii",
    "ansi_x3.4-1968", "quoted-printable"})  # fmt: skip
_ALIASES = {"ansi": "cp1252", "latin-1": "cp1252", "unicode": "utf_8", "utf8mb4": "utf_8",
    "x-gbk": "gb18030", "cn-gb": "gb18030", "cn-big5": "cp950", "big5-eten": "cp950",
    "x-sjis": "cp932", "jis": "iso2022_jp_2", "hz": "hz", "hz-gb-2312": "hz",
    "csiso2022kr": "iso2022_kr", "iso-2022-kr": "iso2022_kr",
    "iso-2022-cn": "", "koi8": "koi8_r", "koi8-rl": "koi8_r", "x-utf-8": "utf_8",
    "utf-7": "utf_7", "unicode-1-1-utf-7": "utf_7", "x-unicode-2-0-utf-7": "utf_7",
    "iso-10646": "utf_8", "koi8-t": "koi8_t", "x-euc-jp": "euc_jp", "x-johab": "johab",
    "johab": "johab", "ks-c-5601": "cp949", "ks_c_5601": "cp949",
    "ksc-5601": "cp949", "uhc": "cp949", "x-windows-949": "cp949",
    "viscii": "", "tcvn": "", "x-mac-ce": "mac_latin2", "x-mac-centraleurroman": "mac_latin2",
    "macce": "mac_latin2", "x-mac-romanian": "mac_romanian", "x-mac-croatian": "mac_croatian",
    "x-mac-icelandic": "mac_iceland"}  # fmt: skip
_PARTS_OF_8859 = {1: 1, 2: 2, 3: 3, 4: 4, 5: 9, 6: 10, 7: 13, 8: 14, 0: 15, 9: 15, 10: 16}
"""The part of ISO 8859 for the number of a Latin alphabet."""

_WINDOWS = {"iso8859_2": "cp1250", "iso8859_5": "", "iso8859_6": "", "iso8859_7": "cp1253",
    "iso8859_8": "cp1255", "iso8859_13": "cp1257", "iso8859_15": "cp1252"}  # fmt: skip
"""The charsets that senders of these mean if the text has C1 control characters.

An empty text stands for a charset with other letters, which the detector finds.
"""
_DOS = re.compile(
    r"(?:cp|ibm|dos|x-cp|cp-|ibm-|windows|win|x-windows|ms|cs)?[-_ ]?(\d{3,4})", re.ASCII
)
_MULTIBYTE = frozenset({"cp949", "gb18030", "cp950", "big5hkscs", "cp932", "shift_jis_2004",
    "euc_jp", "euc_jis_2004", "johab"})  # fmt: skip
_LATIN = frozenset({"cp1252", "cp1250", "cp1254", "cp1257", "cp437", "utf_7"})
_WESTERN_ONLY = (
    "windows-1252",
    "windows-1250",
    "windows-1254",
    "windows-1257",
    "macroman",
    "cp850",
)
_OTHER_SCRIPTS = ("windows-1251", "koi8-r", "koi8-u", "iso-8859-5", "cp866",
    "windows-1253", "iso-8859-7", "windows-1255", "windows-1256", "iso-8859-6", "windows-1258",
    "tis-620", "cp874", "shift_jis", "cp932", "euc-jp", "gb18030", "gbk", "gb2312", "big5",
    "big5hkscs", "euc-kr", "cp949", "windows-1252", "windows-1250")  # fmt: skip
_HIGH = re.compile(rb"[\x80-\xff]")
_THREE = re.compile(r"[\u0800-\uffff\U00010000-\U0010ffff]")
_C1 = re.compile("[\x80-\x84\x86-\x9f]")
_HALF_WIDTH = bytes(byte | 0x80 if byte > 0x20 else byte for byte in range(256))
_LEADS = bytes(((byte + 1) // 2 + (0x70 if byte < 0x5F else 0xB0)) & 0xFF for byte in range(256))
_ODD = bytes((byte + (0x20 if byte > 0x5F else 0x1F)) & 0xFF for byte in range(256))
_EVEN = bytes((byte + 0x7E) & 0xFF for byte in range(256))
MAX_ESCAPES = 50_000
_ESCAPES = re.compile(rb"\x1b(\$[@B]|\([BJI])")
_QUOTES = re.compile(
    rb"(?:(?<![A-Za-z\x80-\xff])[\x91\x93](?=[A-Za-z0-9])|(?<=[A-Za-z0-9.,!?)])[\x92\x94]"
    rb"(?![A-Za-z\x80-\xff]{3})|(?<=[A-Za-z0-9 ])[\x85\x96\x97](?=[A-Za-z0-9 \r\n]|\Z)"
    rb"|(?<![^ \r\n])\x95(?=[ \t])|(?<=[0-9 ])\x80|(?<=[A-Za-z])\x99|\xa0)"
)
"""Punctuation of Windows charsets where it belongs: it stands for no letter of another charset."""

_GREEK_START = re.compile(rb"(?<![\xb5-\xfe])\xa2[\xdc-\xfe]")
"""Alpha with an accent at the start of a word in cp1253; in ISO 8859-7 it is a closing quote."""

_WESTERN = re.compile(
    rb"(?<![A-Za-z\x80-\xff])[\xe0\xc0](?![A-Za-z\x80-\xff])"
    rb"|[\xf1\xd1](?=[AEIOUaeiou\xe1\xe9\xed\xf3\xfa])|(?<=[AEOUaeou])[\xef\xeb]"
)
"""Letters of cp1252 where Western languages have them: a word of one letter, and in ni\u00f1o,
na\u00efve, No\u00ebl."""

_SHARED = bytes.fromhex("c4c9d3d6dcdfe1e4e9edf3f6fafc")
"""Letters that cp1252 and cp1250 have in common."""

_KANA = re.compile("[\u3041-\u30fe]")
_META = re.compile(rb"<meta[^>]{0,500}?charset\s*=\s*[\"']?\s*([^\s\"'/>;]{1,60})", re.IGNORECASE)
_XML = re.compile(rb"^\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([^\"']{1,60})", re.IGNORECASE)
META_BYTES = 16_384
"""The number of bytes of HTML in which a `<meta charset>` counts."""

_BOMS = ((codecs.BOM_UTF8, "utf_8"), (codecs.BOM_UTF32_LE, "utf_32_le"),
    (codecs.BOM_UTF16_LE, "utf_16_le"), (codecs.BOM_UTF16_BE, "utf_16_be"))  # fmt: skip
_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
_UNFIT = _SURROGATES | {0: None}


@dataclass(frozen=True, slots=True)
class Decoded:
    """Decoded text.

    Attributes:
      text: The text, without NUL and lone surrogates.
      charset: The codec that decoded it, by Python's name.
      how: The source of the charset.
      replaced: The number of U+FFFD that stand for undecodable bytes.
    """

    text: str
    charset: str
    how: How
    replaced: int = 0


@dataclass(slots=True)
class Hints:
    """Charsets to try for text without a known label, and the budget of the mail.

    Attributes:
      labels: Labels to try before the detector, such as the charset of the body. Default: none.
      budget: The budget of the mail, which the detector takes from.
    """

    labels: tuple[str | None, ...] = ()
    budget: Budget = field(default_factory=Budget)


def clean(text: str) -> str:
    """Return text without the characters that JSON and PostgreSQL cannot store."""
    return text.translate(_UNFIT) if "\0" in text or not text.isprintable() else text


@lru_cache(maxsize=1_000)
def codecs_of(label: str) -> tuple[str, ...]:
    """Return the codecs to try for a label, by Python's names; none for an unknown label."""
    name = label.strip().strip("\"'<>").split(";")[0].strip().lower().removeprefix("charset=")
    if name in _UNKNOWN:
        return ()
    if name in _ALIASES:
        return (_ALIASES[name],) if _ALIASES[name] else ()
    known = webencodings.lookup(name) or webencodings.lookup(name.replace("_", "-"))
    if known is not None:
        found = known.name
        return _SUPERSETS[found] if found in _SUPERSETS else _usable(known.codec_info.name)
    if number := _DOS.fullmatch(name):
        return {"949": ("cp949",), "936": ("gb18030",), "5601": ("cp949",)}.get(
            number[1], _usable(f"cp{number[1]}")
        )
    squeezed = re.sub(r"[\s_]+", "-", re.sub(r"^(x|cs)-?", "", name))
    if latin := re.fullmatch(r"(?:latin|l)-?(\d{1,2})", squeezed):
        return codecs_of(f"iso-8859-{_PARTS_OF_8859.get(int(latin[1]), 1)}")
    iso = re.match(r"(?:iso-?)?8859-?(\d{1,2})(?:\D|$)", squeezed)
    if iso and iso[1] != "0":
        exact = f"iso-8859-{int(iso[1])}"
        return codecs_of(exact) if exact != name else ()
    if squeezed.startswith(("utf-8", "utf8")):
        return ("utf_8",)
    return codecs_of(squeezed) if squeezed != name else _usable(name)


def _usable(name: str) -> tuple[str, ...]:
    if encodings.normalize_encoding(name).replace(".", "_").lower() not in _CODECS:
        return ()
    try:
        found = codecs.lookup(name).name.replace("-", "_")
        b"0".decode(found, "replace")  # LookupError for codecs of another kind, such as rot13
    except (LookupError, ValueError, UnicodeError):
        return ()
    return () if found in REFUSED or found == "ascii" else (found,)


def decode(data: bytes, label: str | None = None, *, is_html: bool = False,
    hints: Hints | None = None) -> Decoded:  # fmt: skip
    """Decode text.

    A byte order mark leads. Then come the label, HTML's own declaration if the label says nothing,
    strict UTF-8, the hints, the detector, and windows-1252.

    Args:
      data: The bytes.
      label: The declared charset. Default: none.
      is_html: True to look for a `<meta charset>`. Default: False.
      hints: Labels to try before the detector, and the budget of the mail. Default: none.
    """
    for mark, codec in _BOMS:
        if data.startswith(mark) and (codec != "utf_32_le" or len(data) % 4 == 0):
            return _replaced(data[len(mark) :], codec, "bom")
    found = codecs_of(label[:100]) if label else ()
    how: How = "declared"
    if not found and is_html and (declared := _declared_in_html(data)):
        found, how = declared, "meta"
    if found and (result := _by_label(data, found, how)) is not None:
        return result
    if (wide := _wide(data)) is not None:
        return _replaced(data, wide, "detected")
    if (text := _strict(data, "utf_8")) is not None and b"\x1b$" not in data:
        return Decoded(clean(text), "utf_8", "utf-8")
    return _undeclared(data, found, hints or Hints())


def _by_label(data: bytes, found: tuple[str, ...], how: How) -> Decoded | None:
    """Decode by the label, if the bytes agree with it."""
    if found[0].startswith("utf_16"):
        return _replaced(data, _byte_order(data, found[0]), how)
    for codec in found:
        text = _strict(data, codec)
        if text is None:
            continue
        if b"\x1b$" in data and not codec.startswith("iso2022") and (words := _iso2022(data)):
            return Decoded(clean(words), "iso2022_jp_2", "detected")
        if codec in _WINDOWS and (
            _C1.search(text) or (codec == "iso8859_7" and _GREEK_START.search(data))
        ):
            other = _WINDOWS[codec] or detected(data) or ""
            if other and (words := _strict(data, other)) is not None:
                return Decoded(clean(words), other, how)
        if _is_utf8_after_all(data, codec):
            return Decoded(clean(data.decode("utf-8")), "utf_8", "utf-8")
        return Decoded(clean(text), codec, how)
    if found[0] in _WINDOWS and (text := _strict(data, _WINDOWS[found[0]])) is not None:
        return Decoded(clean(text), _WINDOWS[found[0]], how)
    if found[0].startswith("iso2022_jp") and (text := _iso2022(data)) is not None:
        return Decoded(clean(text), "cp932", how)
    return None


def _iso2022(data: bytes) -> str | None:
    """Decode ISO-2022-JP with the characters of CP932, as Windows writes it; None if it fails.

    The two bytes of JIS X 0208 become those of Shift JIS (JIS X 0208:1997, annex 1).
    """
    if b"\x1b$" not in data or not data.isascii() or data.count(b"\x1b") > MAX_ESCAPES:
        return None
    found, mode, position = bytearray(), b"(B", 0
    for escape in chain(_ESCAPES.finditer(data), [None]):
        run = data[position : escape.start() if escape else len(data)]
        if mode in (b"$B", b"$@"):
            found += _shift_jis(run.translate(None, b"\r\n"))
        elif mode == b"(I":
            found += run.translate(_HALF_WIDTH)
        else:
            found += run
        if escape:
            mode, position = escape[1], escape.end()
    return None if b"\x1b" in found else _strict(bytes(found), "cp932")


def _shift_jis(run: bytes) -> bytes:
    high, low = run[: len(run) // 2 * 2 : 2], run[1::2]
    found = bytearray(2 * len(high))
    found[::2] = high.translate(_LEADS)
    found[1::2] = bytes(
        odd if lead & 1 else even
        for lead, odd, even in zip(high, low.translate(_ODD), low.translate(_EVEN), strict=True)
    )
    return bytes(found)


def _byte_order(data: bytes, codec: str) -> str:
    """Return the byte order of UTF-16 without a mark: ASCII characters have their zero behind."""
    even, odd = data[:2_000:2].count(0), data[1:2_000:2].count(0)
    if even == odd:
        return "utf_16_le" if codec == "utf_16" else codec
    return "utf_16_be" if even > odd else "utf_16_le"


def _is_utf8_after_all(data: bytes, codec: str) -> bool:
    """Return True if text with another label is UTF-8: by chance, such bytes hardly occur."""
    if codec in ("utf_8", "utf_7", "hz") or codec.startswith("iso2022"):
        return False
    if not _HIGH.search(data) or (text := _strict(data, "utf_8")) is None:
        return False
    if codec in _MULTIBYTE:
        return len(_THREE.findall(text[:10_000])) >= 2
    high = sum(character > "\x7f" for character in text[:10_000])
    return high >= (1 if codec in _LATIN or codec.startswith(("iso8859", "mac_roman")) else 3)


def _undeclared(data: bytes, found: tuple[str, ...], hints: Hints) -> Decoded:
    for hint in hints.labels:
        for codec in codecs_of(hint[:100]) if hint else ():
            if (text := _strict(data, codec)) is not None:
                return Decoded(clean(text), codec, "declared")
    return _with_wrong_bytes(data, found) or _guessed(data, found, hints.budget)


def _with_wrong_bytes(data: bytes, found: tuple[str, ...]) -> Decoded | None:
    """Decode text in the declared charset with some wrong bytes; None for more of them."""
    if "utf_8" in found or not found:
        text = data.decode("utf-8", "replace")
        wrong = text.count("\ufffd")
        good = sum(c > "\x7f" for c in text[:100_000]) - wrong
        if good >= max(2 * wrong, 1):
            return Decoded(clean(text), "utf_8", "declared" if found else "utf-8", wrong)
    elif found[0] in _MULTIBYTE or found[0].startswith("iso2022") or found[0] == "utf_7":
        best = min((_replaced(data, codec, "declared") for codec in found), key=_wrong)
        if best.replaced <= len(best.text) // 20 + 1:
            return best
    return None


def _guessed(data: bytes, found: tuple[str, ...], budget: Budget) -> Decoded:
    steps = STEPS_OF_GUESS + min(len(data), DETECTED_BYTES) // BYTES_OF_GUESS
    guess = detected(data) if budget.take(steps) else None
    if guess is not None and (words := _strict(data, guess)) is not None:
        return Decoded(clean(words), guess, "detected")
    if guess in _MULTIBYTE:
        damaged = _replaced(data, guess, "detected")
        if damaged.replaced <= len(damaged.text) // 20 + 1:
            return damaged
    return _replaced(data, found[0] if found and found[0] != "utf_8" else "cp1252", "default")


def _wrong(decoded: Decoded) -> int:
    return decoded.replaced


def detected(data: bytes) -> str | None:
    """Return the codec of text without a label, by Python's name; None if nothing fits.

    The share of bytes that are not ASCII tells Latin scripts from others. The detector then
    chooses among the charsets of these scripts.
    """
    for mark, codec in ((b"\x1b$)C", "iso2022_kr"), (b"\x1b$", "iso2022_jp_2"),
        (b"\x1b(", "iso2022_jp_2")):  # fmt: skip
        if mark in data:
            return codec
    if not _HIGH.search(data):
        return None
    sample = b"\n".join(line for line in data[:200_000].splitlines() if _HIGH.search(line))
    sample = sample[:DETECTED_BYTES]
    if not _HIGH.search(_QUOTES.sub(b"", sample)) and sample.count(b"\x94") <= (
        sample.count(b"\x93")
    ):
        return "cp1252"
    high = len(_HIGH.findall(sample))
    if (japanese := _japanese(sample)) is not None:
        return japanese
    rest = _WESTERN.sub(b"", sample)
    if rest != sample and not _HIGH.search(rest.translate(None, _SHARED)):
        return "cp1252"
    letters = high + len(re.findall(rb"[A-Za-z]", sample))
    chosen = _WESTERN_ONLY if high < 0.4 * letters else _OTHER_SCRIPTS
    try:
        found = chardet.detect(sample, include_encodings=chosen, max_bytes=DETECTED_BYTES)
    # A detector reads hostile input.
    except Exception:  # noqa: BLE001
        return None
    name = found.get("encoding")
    codec_names = codecs_of(name) if name else ()
    return next((codec for codec in codec_names if _strict(data, codec) is not None), None)


def _japanese(sample: bytes) -> str | None:
    """Return the codec in which a good part of the text is kana, even with some wrong bytes."""
    for codec in ("cp932", "euc_jp"):
        text = sample.decode(codec, "replace")
        wide = sum(c > "\x7f" for c in text)
        if text.count("\ufffd") <= 1 + wide // 50 and len(_KANA.findall(text)) * 6 > wide > 11:
            return codec
    return None


def _wide(data: bytes) -> str | None:
    """Return UTF-16 if every second byte is zero, as in ASCII text."""
    if b"\0" not in data[:200] or len(data) < 4:
        return None
    even, odd, half = data[:200:2].count(0), data[1:200:2].count(0), len(data[:200]) // 2
    if odd > 0.7 * half and even < 0.1 * half:
        return "utf_16_le"
    return "utf_16_be" if even > 0.7 * half and odd < 0.1 * half else None


def _declared_in_html(data: bytes) -> tuple[str, ...]:
    start = data[:META_BYTES]
    match = _XML.match(start) or _META.search(start)
    found = codecs_of(match[1].decode("latin-1")) if match else ()
    # A declaration that was read as ASCII cannot be UTF-16.
    return ("utf_8",) if found and found[0].startswith("utf_16") else found


def _strict(data: bytes, codec: str) -> str | None:
    try:
        text = data.decode(codec)
    # UnicodeDecodeError, and LookupError or ValueError of broken codecs.
    except (UnicodeError, LookupError, ValueError):
        return None
    return text


def _replaced(data: bytes, codec: str, how: How) -> Decoded:
    try:
        text = data.decode(codec, "replace")
    except (UnicodeError, LookupError, ValueError):
        codec, text = "cp1252", data.decode("cp1252", "replace")
    text = text.translate(_SURROGATES)
    return Decoded(clean(text), codec, how, text.count("\ufffd"))
