"""Files of the repository outside docs/ on the site: notebooks, CONTRIBUTING.md, CHANGELOG.md, and what pages link to.

Pages are written for GitHub, with links such as ../configs/base.py. Each file that is linked to gets a page with its
text, or is copied where a browser shows it as it is (records), and the links follow. A link to nothing is left as it
is, and mkdocs warns of it.
"""

import posixpath
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import notebooks
from markdown import Extension, Markdown
from markdown.treeprocessors import Treeprocessor
from mkdocs.structure.files import File, Files, InclusionLevel

PAGES = {"CONTRIBUTING.md": "develop/contributing.md", "CHANGELOG.md": "develop/changelog.md"}
# Of the files that get a page; others are copied.
LANGUAGES = {".py": "python", ".sh": "bash", ".toml": "toml", ".cff": "yaml", ".yml": "yaml", ".md": "markdown"}
LANGUAGES |= {".txt": "text", ".lock": "text", "": "text"}

LINK = re.compile(r"\]\(\s*<?([^)\s>]+)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
# After "inline" (20), which makes the links; before mkdocs looks at them (0).
BEFORE_MKDOCS = 5


class Repository(Extension):
    """Where each file of the repository is on the site (`uris`), and whose links are being read (`page`)."""

    def __init__(self) -> None:
        super().__init__()
        self.uris: dict[str, str] = {}
        self.sources: dict[str, str] = {}
        self.page = ""

    def extendMarkdown(self, md: Markdown) -> None:
        """Register the rewriting of links (python-markdown's protocol)."""
        md.treeprocessors.register(_Links(md, self), "repository_links", BEFORE_MKDOCS)

    def put(self, path: str, uri: str) -> None:
        """The file `path` of the repository is at `uri` on the site."""
        self.uris[path], self.sources[uri] = uri, path

    def path_of(self, link: str, uri: str) -> str | None:
        """The path in the repository that a link on the page `uri` means; None for one to elsewhere."""
        parts = urlsplit(link)
        if parts.scheme or parts.netloc or not parts.path or parts.path.startswith("/"):
            return None
        source = self.sources.get(uri, f"docs/{uri}")
        return posixpath.normpath(posixpath.join(posixpath.dirname(source), unquote(parts.path)))

    def moved(self, link: str) -> str:
        """The link as it must be on the site, from the page that is being read."""
        path = self.path_of(link, self.page)
        if path is None:
            return link
        uri = self.uris.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        if uri is None:
            return link
        parts = urlsplit(link)
        relative = posixpath.relpath(uri, posixpath.dirname(self.page) or ".")
        return urlunsplit(("", "", relative, parts.query, parts.fragment))


class _Links(Treeprocessor):
    def __init__(self, md: Markdown, repository: Repository) -> None:
        super().__init__(md)
        self.repository = repository

    def run(self, root: Any) -> None:
        for element in root.iter():
            for attribute in ("href", "src"):
                if link := element.get(attribute):
                    element.set(attribute, self.repository.moved(link))


repository = Repository()


def on_config(config: Any) -> None:
    """Every page is read with the extension."""
    config.markdown_extensions.append(repository)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> None:
    """Links are those of this page."""
    repository.page = page.file.src_uri


def on_files(files: Files, config: Any) -> Files:
    """Add the notebooks, the pages from the root, and then all that pages link to outside docs/."""
    root = Path(config.config_file_path).parent
    repository.put("README.md", "index.md")
    repository.sources.pop("index.md")  # it has a text of its own
    for name, uri in PAGES.items():
        repository.put(name, uri)
        files.append(File.generated(config, uri, abs_src_path=str(root / name)))
    for path in sorted((root / "colabs").glob("*.ipynb")):
        uri = f"notebooks/{path.stem}.md"
        repository.put(f"colabs/{path.name}", uri)
        text, pictures = notebooks.read(path, path.stem)
        files.append(File.generated(config, uri, content=text))
        for name, picture in pictures.items():
            repository.put(f"colabs/{name}", f"notebooks/{name}")
            files.append(File.generated(config, f"notebooks/{name}", content=picture))
    for page in files.documentation_pages():
        for found in LINK.finditer(page.content_string):
            target = repository.path_of(found[1] or found[2], page.src_uri)
            if target is not None and (root / target).exists():
                _add(target, root, files, config)
    return files


def _add(path: str, root: Path, files: Files, config: Any) -> None:
    """Put a file or a folder that is linked to on the site, unless it is there."""
    inside = files.get_file_from_path(path.removeprefix("docs/")) if path.startswith("docs/") else None
    if path in repository.uris or path.startswith("../") or (inside and not path.endswith(".py")):
        return
    if (root / path).is_dir():
        uri, text = f"source/{path}.md", _listing(path, root, files, config)
    elif language := LANGUAGES.get(Path(path).suffix):
        uri = f"source/{path}.md"
        text = notebooks.fenced((root / path).read_text(encoding="utf-8"), language)
    else:
        repository.put(path, f"source/{path}")
        files.append(File.generated(config, f"source/{path}", abs_src_path=str(root / path)))
        return
    repository.put(path, uri)
    content = f"---\nsearch:\n  exclude: true\n---\n\n# {path}\n\n{text}\n"
    files.append(File.generated(config, uri, content=content, inclusion=InclusionLevel.NOT_IN_NAV))


def _listing(path: str, root: Path, files: Files, config: Any) -> str:
    """Links to all files of a folder. The page is at source/PATH.md, but its links are read from PATH's parent."""
    found = [file for file in sorted((root / path).rglob("*")) if file.is_file()]
    found = [file for file in found if not any(part.startswith((".", "__")) for part in file.relative_to(root).parts)]
    for file in found:
        _add(file.relative_to(root).as_posix(), root, files, config)
    parent = (root / path).parent
    return "\n".join(f"- [{file.relative_to(root / path)}]({file.relative_to(parent).as_posix()})" for file in found)
