"""plotly.js, as it is embedded in the page."""

import base64
import gzip
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class EmbeddedLibrary:
    """A script that the page includes as compressed text, and runs only if the reader asks for a figure.

    Attributes:
        text: The script, compressed by gzip, in base64.
        source: The script itself, from which the page's security policy computes what may run.
    """

    text: str
    source: str


@cache
def plotly_js() -> EmbeddedLibrary:
    """Return plotly.js of the installed package `plotly`.

    Compressed, it takes 2 MB of the page instead of 5 MB, and a browser does not parse it while it loads the page.
    """
    source = (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
    # No time in the header of gzip, because it would make equal pages differ.
    return EmbeddedLibrary(base64.b64encode(gzip.compress(source, mtime=0)).decode(), source.decode())
