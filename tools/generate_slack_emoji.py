"""Generate `emoji.txt`, the table of Slack's names for emoji.

    npm pack emoji-datasource@16.0.0
    tar xzf emoji-datasource-16.0.0.tgz package/emoji.json package/package.json
    python tools/generate_slack_emoji.py package

Slack's names are the short names of this package: https://github.com/iamcal/emoji-data (MIT).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from integration_polling_slack import emoji

TARGET = Path(emoji.__file__).with_name("emoji.txt")


def main(package: Path) -> None:
    """Write the table of the unpacked npm package in this directory."""
    found = json.loads((package / "emoji.json").read_text("utf-8"))
    about = json.loads((package / "package.json").read_text("utf-8"))
    lines = sorted(_line(one) for one in found)
    head = f"# {about['name']} {about['version']} ({about['license']}): character and names;"
    TARGET.write_text("\n".join([f"{head} + takes skin tones", *lines, ""]), "utf-8")


def _line(one: dict[str, Any]) -> str:
    """Return the line of an emoji.

    Raises:
      ValueError: A skin tone is not where `emoji.toned` puts it.
    """
    character, tones = _decoded(one["unified"]), one.get("skin_variations") or {}
    for number, tone in enumerate(emoji.TONES, 2):
        code = f"{ord(tone):X}"
        known = tones.get(code) or tones.get(f"{code}-{code}")
        if tones and (not known or _decoded(known["unified"]) != emoji.toned(character, number)):
            raise ValueError(f"{one['short_name']}: unexpected place of the skin tone")
    return f"{character} {'+' if tones else ''}{' '.join(one['short_names'])}"


def _decoded(unified: str) -> str:
    return "".join(chr(int(code, 16)) for code in unified.split("-"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
