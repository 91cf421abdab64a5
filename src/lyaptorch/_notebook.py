"""How results show themselves in a notebook."""

from html import escape


def framed(page: str, title: str) -> str:
    """A self-contained page as part of another; its style stays its own."""
    inside = escape(page, quote=True)
    return f'<iframe srcdoc="{inside}" title="{title}" style="width:100%;height:48em;border:0"></iframe>'
