"""A cloud of one folder, $STUB: it keeps one queued resource, and its workers are folders.

A command for the workers is run as OpenSSH and gcloud run it: split and joined at blanks, handed to
a shell whose environment and folder are the worker's own; all workers at once; an exit code of 255
means a lost connection, and the command is run again; the code of the first worker that failed is
gcloud's. What a test wants to happen next lies in queues: files of lines, the first taken first.
"""

import glob
import json
import os
import shutil
import subprocess
import sys
import threading
import time

STUB = os.environ["STUB"]


def path(*names):
    return os.path.join(STUB, *names)


def fail(message, code=1):
    print(f"ERROR: (gcloud) {message}", file=sys.stderr)
    sys.exit(code)


def take(queue):
    """The first line of a queue, which loses it; None if there is none."""
    if not os.path.exists(path(queue)):
        return None
    with open(path(queue)) as file:
        lines = file.read().splitlines()
    with open(path(queue), "w") as file:
        file.writelines(line + "\n" for line in lines[1:])
    return lines[0] if lines else None


def resource():
    if not os.path.exists(path("resource.json")):
        return None
    with open(path("resource.json")) as file:
        return json.load(file)


def put(value):
    with open(path("resource.new"), "w") as file:
        json.dump(value, file)
    os.replace(path("resource.new"), path("resource.json"))


def homes():
    return sorted(name for name in os.listdir(STUB) if name.startswith("worker-"))


def create(name, flags):
    if resource():
        fail(f"ALREADY_EXISTS: {name}")
    if take("create.queue") == "fail":
        fail("RESOURCE_EXHAUSTED: quota")
    labels = dict(pair.split("=") for pair in flags["--labels"].split(","))
    nodes = [flags["--node-id"]] if "--node-id" in flags else [
        f"{flags['--node-prefix']}-{i}" for i in range(int(flags["--node-count"]))
    ]  # fmt: skip
    put({"state": "ACTIVE", "labels": labels, "nodes": dict.fromkeys(nodes, "READY")})
    for i in range(int(os.environ.get("STUB_WORKERS", "1"))):
        os.makedirs(path(f"worker-{i}"))


def delete(name, flags):
    if not resource():
        fail(f"NOT_FOUND: Resource '{name}' was not found")
    os.remove(path("resource.json"))
    for home in homes():
        shutil.rmtree(path(home))


def describe(name, flags):
    state, label = take("states.queue"), name
    if state is None:
        if not resource():
            state = "MISSING"
        else:
            state, label = resource()["state"], resource()["labels"].get("diffjax", "")
    if state == "MISSING":
        fail(f"NOT_FOUND: Resource '{name}' was not found")
    if state == "NO_NETWORK":
        fail("There was a problem refreshing your current auth tokens")
    if state == "FOREIGN":
        state, label = "ACTIVE", ""
    print(f"{state}\t{label}")


def nodes(flags):
    state = take("nodes.queue")
    for node, its in (resource() or {"nodes": {"node": "READY"}})["nodes"].items():
        print(f"{node}\t{state or its}")


def on_worker(home, command, codes):
    number = home.removeprefix("worker-")
    env = {
        "HOME": path(home), "DIFFJAX_WORKER": number, "STUB": STUB, "USER": "somebody",
        "PATH": f"{path('bin')}:{os.path.dirname(os.path.abspath(__file__))}:/usr/bin:/bin",
        "DIFFJAX_MOUNT": path("mount"), "LANG": "C.UTF-8",
    }  # fmt: skip
    for _ in range(3):
        while os.path.exists(path("dying")):  # a machine that is told to end has a while
            time.sleep(0.1)
        if resource()["state"] != "ACTIVE":
            codes[number] = 255
            return
        shell = " ".join(command.split(" "))
        ran = subprocess.run(
            ["bash", "-c", shell], env=env, cwd=path(home), stdin=subprocess.DEVNULL
        )
        codes[number] = ran.returncode if ran.returncode >= 0 else 255  # a shell killed: no answer
        if codes[number] != 255:
            return


def ssh(name, flags):
    command = flags["--command"]
    if os.path.exists(path("runs.queue")):
        if "host.sh run " not in command:
            return 0
        words = (take("runs.queue") or "0").split()
        codes = [int(word.removesuffix("!")) for word in words]
        for number, (word, code) in enumerate(zip(words, codes, strict=True)):
            if code != 255:
                print(f"\ndiffjax-exit {number} {code}{' stopped' if word.endswith('!') else ''}")
        return next((code for code in codes if code), 0)
    chosen, codes = flags["--worker"], {}
    here = [home for home in homes() if chosen in ("all", home.removeprefix("worker-"))]
    threads = [threading.Thread(target=on_worker, args=(home, command, codes)) for home in here]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return next((code for _, code in sorted(codes.items()) if code), 0)


def scp(words, flags):
    *sources, target = words
    folder = target.split(":", 1)[1]
    for home in homes():
        for source in sources:
            shutil.copy(source, path(home, folder))  # with its mode


def storage(words):
    """Buckets are folders of $STUB/buckets."""
    local = [word.replace("gs://", path("buckets") + "/") for word in words]
    if words[0] == "ls":
        return 0 if os.path.exists(local[1]) else 1
    *sources, target = local[1:]
    os.makedirs(target if target.endswith("/") else os.path.dirname(target), exist_ok=True)
    if sources == ["-"]:
        with open(target, "w") as file:
            file.write(sys.stdin.read())
        return 0
    for source in sources:
        for found in glob.glob(source):
            shutil.copy(found, target)
    return 0


def main(arguments):
    with open(path("calls.jsonl"), "a") as file:
        file.write(json.dumps(arguments) + "\n")
    words = [word for word in arguments if not word.startswith("--")]
    flags = dict(word.split("=", 1) for word in arguments if word.startswith("--") and "=" in word)
    if words[0] == "storage":
        return storage(words[1:])
    if words[0] == "secrets":
        print("HF_TOKEN=from-the-secret")
        return 0
    verb, rest = words[3], words[4:]
    if words[2] == "tpu-vm":
        return nodes(flags) if verb == "list" else 0
    if verb == "scp":
        return scp(rest, flags)
    verbs = {"create": create, "delete": delete, "describe": describe, "ssh": ssh}
    return verbs[verb](rest[0], flags)


sys.exit(main(sys.argv[1:]))
