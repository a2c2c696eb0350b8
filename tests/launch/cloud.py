"""The stub cloud of tests/launch/stubs, and scripts of launch/ run against it."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
STUBS = Path(__file__).resolve().parent / "stubs"
WHERE = ("--project", "my-project", "--zone", "us-west4-a", "--name", "demo")


@dataclass(frozen=True)
class Cloud:
    """A folder that plays the cloud; what happens next in it is queued in files."""

    folder: Path
    root: Path = ROOT

    def env(self, **more) -> dict[str, str]:
        """The environment of the user's machine: stubs first on PATH, and no waiting."""
        return {
            "PATH": f"{self.folder / 'bin'}:{STUBS}:/usr/bin:/bin",
            "HOME": str(self.folder),
            "STUB": str(self.folder),
            "DIFFJAX_POLL_SECONDS": "0",
            "DIFFJAX_MOUNT": str(self.folder / "mount"),
            "LANG": "C.UTF-8",
            **more,
        }

    def run(self, script: str, *arguments, timeout=120, **env) -> subprocess.CompletedProcess:
        """Run launch/SCRIPT to its end; the output is text."""
        return subprocess.run(
            [self.root / "launch" / script, *arguments], env=self.env(**env), cwd=self.folder,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip

    def queue(self, name: str, *lines: str) -> None:
        """What the stub takes, line by line: states, nodes, runs or create."""
        (self.folder / f"{name}.queue").write_text("".join(line + "\n" for line in lines))

    def calls(self) -> list[list[str]]:
        """Every call to gcloud so far, each a list of its arguments."""
        log = self.folder / "calls.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def verbs(self) -> list[str]:
        """The calls as short words, in order: describe, list, create, delete, scp, ssh ..."""
        return [_verb(call) for call in self.calls()]

    def program(self, name: str, text: str) -> Path:
        """A program of the test's own on every PATH of this cloud."""
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def worker(self, number: int = 0) -> Path:
        """A worker that is set up: its code is the project's folder, its packages those here."""
        home = self.folder / f"worker-{number}"
        (home / "diffjax" / "venv" / "bin").mkdir(parents=True)
        os.symlink(self.root, home / "diffjax" / "code")
        resource = {"state": "ACTIVE", "labels": {"diffjax": "demo"}, "nodes": {"demo": "READY"}}
        (self.folder / "resource.json").write_text(json.dumps(resource))
        return home


def _verb(call: list[str]) -> str:
    words = [word for word in call if not word.startswith("--")]
    if words[:2] != ["compute", "tpus"]:
        return " ".join(words[:2])
    command = next((word for word in call if word.startswith("--command=")), "")
    for action in ("run", "alive", "stop", "exec", "logs"):
        if f"host.sh {action} " in command:
            return action
    return "setup" if "setup_host.sh" in command else words[3]
