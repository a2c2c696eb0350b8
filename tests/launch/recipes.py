"""The commands of launch/README.md, and what they would do: python -m tests.launch.recipes.

Each command that runs a script of launch/ is run with --dry-run; the golden file that this module
writes holds what they print.
"""

import re
import shlex
import sys
import tempfile
from pathlib import Path

from tests.launch.cloud import ROOT, Cloud

README = ROOT / "launch" / "README.md"
GOLDEN = Path(__file__).resolve().parent / "recipes.golden"


def commands() -> list[str]:
    """Every line of every block, in order."""
    blocks = re.findall(r"```\n(.*?)```", README.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def scripts() -> list[str]:
    """Those that run launch/tpu.sh and launch/xpk.sh."""
    return [line for line in commands() if re.match(r"launch/\w+\.sh ", line)]


def dry_run(command: str) -> str:
    """What the command prints with --dry-run, free of this machine's paths and the commit."""
    words = shlex.split(command)
    where = words.index("--") if "--" in words else len(words)
    words.insert(where, "--dry-run")
    with tempfile.TemporaryDirectory() as folder:
        cloud = Cloud(Path(folder))
        (Path(folder) / "launch").mkdir()
        secrets = Path(folder) / "launch" / ".env"
        secrets.write_text("HF_TOKEN=hf_secret\n")
        secrets.chmod(0o600)
        place = {"DIFFJAX_PROJECT": "my-project", "DIFFJAX_ZONE": "us-west4-a"}
        place["DIFFJAX_MOUNT"] = "/mnt/diffjax"
        ran = cloud.run(Path(words[0]).name, *words[1:], **place)
        if ran.returncode or cloud.calls() or "hf_secret" in ran.stdout + ran.stderr:
            raise AssertionError(f"{command}\n{ran.returncode} {cloud.calls()} {ran.stderr}")
    return re.sub(r"COMMIT:\w{40}", "COMMIT:COMMIT", ran.stdout.replace(str(ROOT), "ROOT"))


def golden() -> str:
    """The text of the golden file, as the scripts are now."""
    return "\n".join(f"$ {command}\n{dry_run(command)}" for command in scripts())


if __name__ == "__main__":
    sys.exit(GOLDEN.write_text(golden()) and None)
