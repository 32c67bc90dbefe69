"""What the site needs besides the pages: README is its first page, and links out of docs/ lead to files of their own.

Hooks of MkDocs, which calls them by these names.
"""

from __future__ import annotations

import posixpath
import re
from functools import partial
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
_LINK = re.compile(r"(\]\s*)\(([^)\s#:]+)((?:#[^)\s]*)?)\)")
_PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
_OF_CLIENTS = {
    "clients/js/README.md": "javascript.md",
    "clients/python/README.md": "python.md",
    "clients/conformance/README.md": "conformance.md",
    "examples/README.md": "examples.md",
}
_ELSEWHERE = {"README.md": "index.md", **_OF_CLIENTS}
"""Pages that lie outside of docs/ under other names."""
_TEXT = (".md", ".yml", ".yaml", ".cfg", ".conf", ".service", ".socket", ".json", ".toml", ".py", ".txt")


def on_files(files: Files, config: Any) -> Files:
    """README and its neighbours are pages too, and so is every file that a page shows the way to."""
    index = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=_LINK.sub(_from_readme, index)))
    for name in _PAGES:
        text = _LINK.sub(_from_readme, (ROOT / name).read_text(encoding="utf-8"))
        files.append(File.generated(config, name, content=text))
    for path, name in _OF_CLIENTS.items():
        text = _LINK.sub(partial(_from_client, posixpath.dirname(path)), (ROOT / path).read_text(encoding="utf-8"))
        files.append(File.generated(config, name, content=text))
    files.remove(next(file for file in files if file.src_uri == "package.md"))
    for path in sorted(_shown()):
        files.append(File.generated(config, f"files/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links that leave docs/ lead to where `on_files` has put what they are to."""
    if page.file.src_uri in (*_ELSEWHERE.values(), *_PAGES):
        return markdown
    depth = page.file.src_uri.count("/")
    return _LINK.sub(lambda link: _mended(link, depth), markdown)


def _mended(link: re.Match[str], depth: int) -> str:
    up = "../" * (depth + 1)
    target = link[2]
    if not target.startswith(up):
        return link[0]
    rest = target.removeprefix(up)
    return f"{link[1]}({'../' * depth}{rest if rest in _PAGES else _index(rest)}{link[3]})"


def _index(path: str) -> str:
    return _ELSEWHERE.get(path) or f"files/{path}"


def _from_readme(link: re.Match[str]) -> str:
    target = link[2]
    if target.startswith("docs/"):
        target = target.removeprefix("docs/")
    elif target not in _PAGES:
        target = _index(posixpath.normpath(target))
    return f"{link[1]}({target}{link[3]})"


def _from_client(place: str, link: re.Match[str]) -> str:
    if "://" in link[2]:
        return link[0]
    target = posixpath.normpath(posixpath.join(place, link[2]))
    return f"{link[1]}({target.removeprefix('docs/') if target.startswith('docs/') else _index(target)}{link[3]})"


def _shown() -> set[str]:
    """Files outside of docs/ that some page links to."""
    shown = set()
    pages = [*ROOT.glob("docs/**/*.md"), *[ROOT / name for name in (*_ELSEWHERE, *_PAGES)]]
    for page in pages:
        for _, target, _ in _LINK.findall(page.read_text(encoding="utf-8")):
            path = (page.parent / target).resolve()
            if path.is_file() and not path.is_relative_to(ROOT / "docs") and path.is_relative_to(ROOT):
                name = path.relative_to(ROOT).as_posix()
                if name not in (*_ELSEWHERE, *_PAGES):
                    shown.add(name)
    return shown
