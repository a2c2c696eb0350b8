"""Serves the page behind `gate`, with files of its own; nothing is shared or reported."""

import os
from pathlib import Path
from typing import Protocol, runtime_checkable

from diffjax.app import gate
from diffjax.app.followers import Followers
from diffjax.app.origin import Origins
from diffjax.app.room import Room

# The most visitors whose pictures are remembered, with a tab open now or a short time ago.
MAX_SESSIONS = 100
STYLE = """
.gradio-container {width: 100%; max-width: 1120px !important; margin: 0 auto !important}
#head h1 {font-size: 1.5rem; margin: 0}
#head p, #told p, .title p {opacity: .7; margin: 0}
.title p {font-size: var(--text-sm)}
.stage, .stage > div {min-height: 180px}
.stage .grid-wrap, #mine .grid-wrap {overflow: hidden; max-height: none; min-height: 0 !important}
.stage:has(.preview) .gallery-container, #mine:has(.preview) .gallery-container {height: 400px}
.small img {image-rendering: pixelated}
footer {display: none !important}
"""


@runtime_checkable
class Page(Protocol):
    """What we use of a gr.Blocks, which cannot be imported here."""

    local_url: str

    def launch(self, **options: object) -> object:
        """Starts the server."""


def launch(
    page: Page,
    room: Room,
    host: str,
    port: int,
    auth: tuple[str, str] | None,
    *,
    origins: Origins,
    followers: Followers,
) -> str:
    """Serves the page in other threads, and returns its address.

    room: of the page's folder. origins, followers: see `gate.gate`.

    Raises:
      OSError: the port is taken.
    """
    import gradio as gr

    from diffjax.app import connections

    def guard(app: gate.App) -> gate.App:
        return gate.gate(app, room.folder, origins, followers, room)

    connections.hurry(guard)
    page.launch(
        server_name=host,
        server_port=port,
        auth=auth,
        share=False,
        inline=False,
        prevent_thread_lock=True,
        quiet=True,
        show_error=False,
        footer_links=[],
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        pwa=False,
        max_file_size=gate.POSTS["/gradio_api/upload"],
        state_session_capacity=MAX_SESSIONS,
        theme=gr.themes.Default(),
        css=STYLE,
    )
    return page.local_url


def own_environment(folder: Path) -> None:
    """Points Gradio's files to `folder` and drops the environment variables that it reads.

    Some of them open folders of this machine, share the page or report on it. To be called before
    Gradio is imported.
    """
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # not every version has these as arguments of `launch`
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    os.environ["GRADIO_NUM_WORKERS"] = "0"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # Gradio asks its own address at the start whether it is up; a proxy must not answer that
    for name in ("NO_PROXY", "no_proxy"):
        others = os.environ.get(name)
        os.environ[name] = ",".join(filter(None, [others, "127.0.0.1", "localhost", "::1"]))
