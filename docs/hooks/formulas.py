"""Formulas of the site: $...$ and $$...$$, as GitHub reads them, become MathML while the site is built.

Browsers draw MathML by themselves, so a page needs no script and no network. A formula that is no LaTeX is a warning,
and so an error in a strict build.
"""

import re
from typing import Any

from markdown import Extension, Markdown
from markdown.inlinepatterns import InlineProcessor
from markdown.preprocessors import Preprocessor
from math_core import LatexError, LatexToMathML
from mkdocs.plugins import get_plugin_logger

log = get_plugin_logger("formulas")

# On lines of its own, at any indentation.
DISPLAYED = re.compile(r"^([ \t]*)\$\$(.+?)\$\$[ \t]*$", re.MULTILINE | re.DOTALL)
# Within a line: no space inside the dollars, no letter, digit or dollar next to them, so that prices stay prices.
INLINE = r"(?<![\\$\w])\$(?![\s$])((?:\\.|[^$\\])+?)(?<!\s)\$(?![\w$])"

# Code spans have priority 190 and backslashes 180; fenced code has 25 among the preprocessors.
AFTER_CODE_SPANS, AFTER_FENCES = 185, 24


class Formulas(Extension):
    """The Markdown extension. `page` is what warnings name."""

    def __init__(self) -> None:
        super().__init__()
        self.page = ""
        self._converter = LatexToMathML(fancy_error=False)

    def extendMarkdown(self, md: Markdown) -> None:
        """Register the two forms (python-markdown's protocol)."""
        md.preprocessors.register(_Displayed(md, self), "displayed_formulas", AFTER_FENCES)
        md.inlinePatterns.register(_Inline(md, self), "inline_formulas", AFTER_CODE_SPANS)

    def convert(self, latex: str, display: bool) -> str:
        """MathML of a formula; where it is no LaTeX, a warning and the text itself."""
        try:
            return self._converter.convert_with_local_state(latex.strip(), displaystyle=display)
        except LatexError as error:
            log.warning(f"{self.page}: the formula {latex.strip()!r}: {error}")
            return latex


class _Displayed(Preprocessor):
    def __init__(self, md: Markdown, formulas: Formulas) -> None:
        super().__init__(md)
        self.formulas = formulas

    def run(self, lines: list[str]) -> list[str]:
        return DISPLAYED.sub(self._stash, "\n".join(lines)).split("\n")

    def _stash(self, found: re.Match[str]) -> str:
        # A box of its own, so that a long formula scrolls where the screen is narrow.
        formula = f'<div class="formula">{self.formulas.convert(found[2], display=True)}</div>'
        return f"\n{found[1]}{self.md.htmlStash.store(formula)}\n"


class _Inline(InlineProcessor):
    def __init__(self, md: Markdown, formulas: Formulas) -> None:
        super().__init__(INLINE, md)
        self.formulas = formulas

    def handleMatch(self, found: re.Match[str], data: str) -> Any:  # type: ignore[override]
        return self.md.htmlStash.store(self.formulas.convert(found[1], display=False)), found.start(0), found.end(0)


formulas = Formulas()


def on_config(config: Any) -> None:
    """Every page and every docstring is read with the extension."""
    config.markdown_extensions.append(formulas)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> None:
    """Warnings name the page."""
    formulas.page = page.file.src_uri
