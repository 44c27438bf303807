"""HTML from Python values. All text is escaped unless it is markup already, so a column may have any name."""

from __future__ import annotations

import html
import json
import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any

VOID = {"img", "meta", "link", "br"}
LONGEST_NAME = 60  # characters of a name of the user's that are shown


class Html(str):
    """Text that is markup already."""


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """An element. Children that are not `Html` are escaped; an underscore in an attribute stands for a hyphen.

    Examples
    --------
    >>> tag("p", "1 < 2", tag("b", "!"), class_="note", hidden=True)
    '<p class="note" hidden>1 &lt; 2<b>!</b></p>'
    """
    given = "".join(map(_attribute, attributes.items()))
    return Html(f"<{name}{given}>" if name in VOID else f"<{name}{given}>{joined(*children)}</{name}>")


def _attribute(item: tuple[str, Any]) -> str:
    name, value = item[0].rstrip("_").replace("_", "-"), item[1]
    if value is None or value is False:
        return ""
    return f" {name}" if value is True else f' {name}="{html.escape(str(value), quote=True)}"'


def joined(*children: Any) -> Html:
    """Children one after the other; None is nothing, a list or an iterator its members.

    Examples
    --------
    >>> joined("a&b", None, [Html("<i>c</i>")])
    'a&amp;b<i>c</i>'
    """
    return Html("".join(map(_child, children)))


def _child(child: Any) -> str:
    if child is None:
        return ""
    if isinstance(child, str):
        return child if isinstance(child, Html) else html.escape(child, quote=False)
    return joined(*child) if isinstance(child, Iterable) else html.escape(str(child))


def number(value: Any, digits: int = 4) -> str:
    """A number for people: so many digits, a true minus sign, a dash where there is none.

    Examples
    --------
    >>> number(-1234.5678), number(float("nan")), number(12), number(1e-7)
    ('−1235', '–', '12', '1e−07')
    """
    if value is None or not math.isfinite(value):
        return "–"
    whole = float(value).is_integer() and abs(value) < 1e6
    large = digits <= math.log10(abs(value) + 1) < 6
    text = f"{int(value)}" if whole else f"{value:.0f}" if large else f"{value:.{digits}g}"
    return text.replace("-", "−")


def count(n: int, one: str, many: str | None = None) -> str:
    """A number of things.

    Examples
    --------
    >>> count(1, "row"), count(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def short(name: Any, limit: int = LONGEST_NAME) -> str:
    """A name of the user's on one line, cut when it is long.

    Examples
    --------
    >>> short("a" * 20, 8)
    'aaaaaaa…'
    """
    text = " ".join(str(name).split())
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def table(caption: str, heads: Sequence[Any], rows: Iterable[Sequence[Any]], quiet: bool = False) -> Html:
    """A table whose first column names the rows; it scrolls sideways by itself, also from the keyboard.

    A quiet caption is only for those who hear the page: a heading above says the same.
    """
    rows = list(rows)
    right = ["n" if any(isinstance(row[i], numbers.Real) for row in rows) else None for i in range(len(heads))]
    body = [tag("tr", tag("th", _cell(row[0]), scope="row"), map(_data, row[1:], right[1:])) for row in rows]
    head = tag("tr", [tag("th", text, scope="col", class_=side) for text, side in zip(heads, right, strict=True)])
    named = tag("caption", caption, class_="hidden" if quiet else None)
    made = tag("table", named, tag("thead", head), tag("tbody", body))
    return tag("div", made, class_="scroll", tabindex="0", role="region", aria_label=f"Table: {caption}")


def _data(value: Any, side: str | None) -> Html:
    return tag("td", _cell(value), class_=side)


def _cell(value: Any) -> Any:
    return number(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else value


def details(summary: str, *children: Any) -> Html:
    """What opens on demand, such as the numbers behind a chart."""
    return tag("details", tag("summary", summary), *children)


def figure(*children: Any, caption: Any = None, class_: str | None = None) -> Html:
    """Charts or pictures and what they show."""
    return tag("figure", *children, tag("figcaption", caption) if caption else None, class_=class_)


def section(place: str, title: str, *children: Any) -> Html:
    """A part of the page with a heading; ``place`` is what a link points at."""
    return tag("section", tag("h2", title, id=place), *children, aria_labelledby=place)


def words(*sentences: str | None) -> Html:
    """A paragraph."""
    return tag("p", " ".join(filter(None, sentences)))


def as_json(value: Any) -> Html:
    r"""JSON that may stand inside a script element: nothing in it can end the element.

    Examples
    --------
    >>> print(as_json(["</script>", 1.5]))
    ["\u003c/script\u003e",1.5]
    """
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Html(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
