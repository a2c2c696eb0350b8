"""How the page is served: behind the gate, with files of its own, shared and reported nowhere."""

import contextlib
import os
from pathlib import Path
from typing import Any

from diffjax.app import gate

# Of visitors whose tabs are open or were of late: how many are remembered.
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


def launch(blocks: Any, folder: Path, host: str, port: int, auth: tuple[str, str] | None) -> str:
    """Serve the page in threads of its own; returns its address.

    Raises:
      OSError: the port is taken.
    """
    import gradio as gr
    from starlette.middleware import Middleware

    blocks.launch(
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
        app_kwargs={"middleware": [Middleware(gate.gate, folder=folder)]},
        theme=gr.themes.Default(),
        css=STYLE,
    )
    return blocks.local_url


def own_environment(folder: Path) -> None:
    """Before Gradio is imported: its files go to `folder`, and its variables change nothing.

    They could open paths of this machine, share the page, or report on it.
    """
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    # not every version has the arguments
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    os.environ["GRADIO_NUM_WORKERS"] = "0"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    # it asks itself at the start whether it is there, not by way of a proxy
    for name in ("NO_PROXY", "no_proxy"):
        others = os.environ.get(name)
        os.environ[name] = ",".join(filter(None, [others, "127.0.0.1", "localhost", "::1"]))


def sweep(folder: Path, older_than: float) -> None:
    """Take away files that were written before this time, of whatever origin."""
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # it went meanwhile
            if path.is_file() and path.stat().st_mtime < older_than:
                path.unlink()
