"""The table of errors in docs/api.md, from the registry in the code; `make docs` writes it."""

from pathlib import Path

from ags.api.errors import REGISTRY

PAGE = Path(__file__).with_name("api.md")
BEGIN, END = "<!-- errors -->", "<!-- /errors -->"


def table() -> str:
    """Return the registry as a Markdown table, in the order of the codes."""
    rows = [
        f"| {error.status.value} | {error.code} | `{error.reason}` | {error.message.format_map(_Named())} |"
        for error in REGISTRY
    ]
    return "\n".join(["| status | `code` | `reason` | `message` |", "| --- | --- | --- | --- |", *rows])


class _Named(dict[str, str]):
    """The values of a message are unknown here: their names are shown in italics."""

    def __missing__(self, name: str) -> str:
        return f"*{name}*"


def page() -> str:
    """Return the page with the present table."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"
