"""The templates in `page/`, into which nothing can be put that acts.

Every value has its control characters spelled out and its secrets masked (`printable`), and is then
escaped by jinja2. Only `Markup`, which is text of ours, is taken as it is. A name that is not given
is an error, never an empty place.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from vidplat.cli import phrases
from vidplat.errors import printable


def rendered(name: str, **values: Any) -> str:
    """The text of a template with these values in it."""
    return _templates().get_template(name).render(values)


def own(name: str) -> str:
    """A file that lies beside the templates, as it is."""
    return (files("vidplat.cli") / "page" / name).read_text(encoding="utf-8")


@lru_cache
def _templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("vidplat.cli", "page"),
        autoescape=True,
        finalize=_harmless,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {
        "against": phrases.against,
        "count": phrases.count,
        "cut": printable,
        "grouped": "{:,}".format,
        "href": _href,
        "moment": phrases.moment,
        "percent": phrases.percent,
        "px": "{:.1f}".format,
        "quality": phrases.quality,
        "seconds": phrases.seconds,
        "seconds_tick": phrases.seconds_tick,
        "size": phrases.size,
    }
    return templates


def _harmless(value: object) -> object:
    return value if isinstance(value, Markup) else printable(value, 1000)


def _href(place: str) -> Markup:
    """Where a video or a poster is: a path beside the page, or a data URI, however long."""
    is_ours = ":" not in place or place.startswith(("data:video/mp4;", "data:image/jpeg;"))
    assert is_ours, f"neither beside the page nor in it: {printable(place, 80)}"
    return escape(place)
