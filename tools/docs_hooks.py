"""MkDocs hooks: add the generated reference pages, the list of decisions, and the diagrams' script to the site."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

from tools.reference_pages import PAGES, records

ROOT = Path(__file__).parents[1]
MERMAID = ROOT / "node_modules" / "@mermaid-js" / "tiny" / "dist" / "mermaid.tiny.js"
MERMAID_URI = "assets/javascripts/mermaid.js"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List every decision record in the navigation."""
    for chapter in config.nav or []:
        if "Decisions" in chapter:
            chapter["Decisions"] += [
                {f"{head['number']}. {head['title']}": f"decisions/{path.name}"} for path, head in records()
            ]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the diagrams' script from node_modules.

    Raises:
        PluginError: The script is not installed.
    """
    for uri, make in PAGES.items():
        files.append(File.generated(config, uri, content=make()))
    if not MERMAID.exists():
        raise PluginError(f"{MERMAID} does not exist. Run `make setup`, then `make docs` again.")
    files.append(File.generated(config, MERMAID_URI, abs_src_path=str(MERMAID)))
    return files


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Load the diagrams' script before the theme's own, which would otherwise fetch it from a CDN."""
    if 'class="mermaid"' not in output:
        return output
    script = f'<script src="{get_relative_url(MERMAID_URI, page.url)}"></script>'
    return output.replace("</head>", f"{script}</head>", 1)
