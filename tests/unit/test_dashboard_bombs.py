"""Small mails that would become large or slow when parsed: the service bounds their cost."""

from __future__ import annotations

import base64

from core.web import mail_preview as mail
from core.web import sanitizer

PNG = b"\x89PNG\r\n\x1a\n"


def test_an_image_used_a_thousand_times_is_embedded_a_few_times() -> None:
    image = f"data:image/png;base64,{base64.b64encode(PNG + b'x' * 2_000_000).decode()}"
    shown, _ = sanitizer.sanitize('<img src="cid:one">' * 1_000, {"one": image})
    assert 1 <= shown.count("data:") < 10
    assert len(shown) < sanitizer.MAX_INLINE_IMAGES_CHARS + 100_000
    shown, _ = sanitizer.sanitize(
        '<img src="cid:one"><p>and</p><img src="cid:one">', {"one": image[:10_000]}
    )
    assert shown.count("data:") == 2


def test_unclosed_tags_do_not_multiply() -> None:
    kinds = {
        "with a value": [f"<font size={number}>" for number in range(2_000)],
        "with a title": [f'<b title="{number}">' for number in range(2_000)],
        "long": [f'<i title="{number} {"x" * 200}">' for number in range(2_000)],
        "read in another way": [f'<u title=">{number}">' for number in range(2_000)],
        "of odd names": [f"<s/{number}=x>" for number in range(2_000)],
        "in capitals": [
            f'<tt title="{number:016b}">'.replace("0", "o").replace("1", "O")
            for number in range(2_000)
        ],
        "on lines": [f"<EM\nlang\r=\t'{number}'>" for number in range(2_000)],
    }
    for name, tags in kinds.items():
        html = f"<p>{''.join(tags)}{'<p>x' * 2_000}"
        shown, _ = sanitizer.sanitize(html)
        assert len(shown) < 2 * sanitizer.MAX_REPEATED_CHARS, name
        assert shown.count("x</") >= 1, name


def test_the_formatting_of_an_ordinary_mail_is_kept() -> None:
    row = '<tr><td><font face="Arial" size="2" color="#333333"><b>a</b> <i>b</i></font></td></tr>'
    html = f"<table>{row * 500}</table>"
    shown, cut = sanitizer.sanitize(html)
    assert not cut
    assert (shown.count("<b>a</b>"), shown.count("<i>b</i>"), shown.count('face="Arial"')) == (
        500,
    ) * 3


def test_a_carriage_return_ends_a_line_of_a_mail() -> None:
    nested = b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (n, n) for n in range(300)
    )
    assert mail.read(nested + b"Content-Type: text/plain\n\n" + b"\r" * 1_000_000).html is None
    crlf = (
        b"Subject: x\r\nContent-Type: multipart/mixed;"
        b" boundary=b\r\n\r\n--b\r\n\r\nhello\r\n--b--\r\n"
    )
    letter = mail.read(crlf)
    assert letter is not None
    assert letter.text == "hello"


def test_the_number_of_parameters_of_a_header_is_bounded() -> None:
    names = "".join(f" name*{number}=part{number}.;" for number in range(30))
    data = (
        f'Content-Type: text/plain; x="{";" * 7_900}"; charset=latin-1\nSubject: {";" * 200}\n\nx\n'
    )
    named = (
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type:"
        f" image/png;{names}\n\nx\n--b--\n"
    )
    message = mail.read(data.encode())
    assert message is not None
    assert dict(message.headers)["Subject"] == ";" * 200
    assert message.text == "x"
    attached = mail.read(named.encode())
    assert attached is not None
    assert attached.attachments[0][0].endswith("part29.")


def test_the_number_of_parts_of_a_mail_is_bounded() -> None:
    beginning = b"Content-Type: multipart/mixed; boundary=b\n\n"
    file = b"--b\nContent-Type: image/png\n\n"
    assert len(mail.read(beginning + file * 21_000).attachments) == mail.MAX_PARTS
