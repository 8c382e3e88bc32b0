"""The language of a text, and the stems of its words."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping

import snowballstemmer

_COMMON = {
    "english": "the and of to is in that it for was you with this are have not be on we from",
    "german": "der die und das ist nicht den von mit ein eine zu dem auf wir für sie es im auch",
    "french": "le la les des et est une du que dans pour pas qui sur au avec nous vous ce sont",
    "spanish": "el la los las y que es una del por con para no se en como más pero su está",
    "italian": "il di che è la per un una non sono del con gli della si ma come alla nel i",
    "portuguese": "o a os as de que e do da em um uma para com não é se na por mais",
    "dutch": "de het een en van is dat niet op te met zijn voor aan er maar wij ook bij om",
    "danish": "og det er en at den af på til med der ikke for de som har vi et kan jeg",
    "swedish": "och det är en att som på inte av för den med till har de jag ett om vi var",
    "norwegian": "og det er en å på som ikke av for den med til har de jeg et om vi var",
    "finnish": "ja on ei että se oli kun hän mutta tai joka myös ovat sen niin nyt olla mitä",
    "hungarian": "a az és hogy nem egy is de ez van meg csak már el volt mint ha be ki",
    "romanian": "și de la în a că nu este cu pe un o din pentru care mai să sunt ale",
    "turkish": "ve bir bu da de için ile çok ne var olarak daha değil gibi en ama o",
    "polish": "i w nie na się z do że to jest jak po ale za od przez dla czy tak są",
    "czech": "a se v na je že to s do jak po ale za od pro by jsem ve tak jsou není",
    "russian": "и в не на что с по это как к но из у за от так же для он мы",
    "greek": "και το να η ο της των που με για από είναι στο την του δεν θα τα",
    "arabic": "في من على أن إلى هذا التي عن مع ما لا هذه كان الذي هو أو قد",
}
"""Frequent words, by the name of the language's stemmer."""

COMPOUNDING = frozenset(
    {"german", "dutch", "danish", "swedish", "norwegian", "finnish", "hungarian"}
)
"""Languages that write compounds as one word."""

UNKNOWN = ("english", "german", "french", "spanish", "italian")
"""The languages of a text in Latin letters that is too short to tell."""

LETTERS = {
    "polish": "ąęłńśźż", "czech": "ěřů", "hungarian": "őű", "romanian": "ăâîșțşţ",
    "turkish": "ğış", "swedish": "å", "danish": "æøå", "norwegian": "æøå", "finnish": "äö",
    "portuguese": "ãõ",
}  # fmt: skip
"""Letters of languages besides `UNKNOWN`: a short text with them may be in these languages, too."""

SHORT_STEMS = frozenset({"greek"})
"""Languages whose stemmer cuts some forms of a word further than others."""

_SCRIPTS = {
    "russian": "\u0400-\u04ff",
    "greek": "\u0370-\u03ff\u1f00-\u1fff",
    "arabic": "\u0600-\u06ff",
}
_OWN = {language: re.compile(f"[{letters}]") for language, letters in _SCRIPTS.items()}
_LANGUAGES: Mapping[str, frozenset[str]] = {
    language: frozenset(words.split()) for language, words in _COMMON.items()
}
_CODES = {language: language[:3] for language in _COMMON}
_VOWELS = re.compile("[\u0640\u064b-\u065f\u0670]")
_ALEF = re.compile("[\u0622\u0623\u0625\u0671]")
_ARTICLES = ("وال", "بال", "كال", "فال", "ولل", "ال", "لل")
_ENDINGS = ("ها", "ان", "ات", "ون", "ين", "يه", "ية", "ه", "ة", "ي")
MIN_STEMMED_CHARS = 4
"""Shorter words have no stem, because most of them are the same in all forms."""


def detected(words: Iterable[str]) -> tuple[str, ...]:
    """Return the one or two languages of a text in Latin letters, by its frequent words."""
    counted = Counter(words)
    hits = Counter(
        {
            language: sum(counted[word] for word in common)
            for language, common in _LANGUAGES.items()
            if language not in _SCRIPTS
        }
    )
    best, most = hits.most_common(1)[0]
    if most < 2:
        used = set().union(*counted)
        return (*UNKNOWN, *(language for language, own in LETTERS.items() if used & set(own)))
    near = [language for language, count in hits.most_common(3) if count > 0.6 * most]
    return tuple(near) if best else UNKNOWN


def stems(word: str, languages: Iterable[str] | None = None) -> dict[str, str]:
    """Return the stems of a word by language.

    Args:
      word: The word with its accents, in lower case.
      languages: The languages of its text. Default: all.
    """
    if _OWN["arabic"].match(word):
        return {"arabic": _arabic(word)}
    if len(word) < MIN_STEMMED_CHARS or not word.isalpha():
        return {}
    script = next((language for language, letters in _OWN.items() if letters.match(word)), None)
    if script is not None:
        return {script: _stem(script, word)}
    chosen = (
        [each for each in _LANGUAGES if each not in _SCRIPTS] if languages is None else languages
    )
    return {language: _stem(language, word) for language in chosen}


def code(language: str) -> str:
    """Return the letters that stand for a language in the index."""
    return _CODES[language]


@functools.lru_cache(maxsize=200_000)
def _stem(language: str, word: str) -> str:
    stem: str = _stemmer(language).stemWord(word)
    return stem


@functools.lru_cache(maxsize=50_000)
def _arabic(word: str) -> str:
    """Return an Arabic word without articles and endings.

    The endings of "light10" (Larkey, Ballesteros, Connell: Light Stemming for Arabic Information
    Retrieval, 2007). Snowball's stemmer also takes a first letter of the word for a preposition.
    """
    word = _ALEF.sub("\u0627", _VOWELS.sub("", word))
    for prefix in _ARTICLES:
        if word.startswith(prefix) and len(word) - len(prefix) >= 2:
            word = word[len(prefix) :]
            break
    for suffix in _ENDINGS:
        if word.endswith(suffix) and len(word) - len(suffix) >= 2:
            word = word[: -len(suffix)]
    return word


@functools.cache
def _stemmer(language: str) -> snowballstemmer.basestemmer.BaseStemmer:
    return snowballstemmer.stemmer(language)
