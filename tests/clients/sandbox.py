"""What the clients' scripts share: the running sandbox, a daemon in front of it, and the people of the shop.

The sandbox is described by the one line of JSON that `countersign sandbox --json` prints; the file with it is in
COUNTERSIGN_SANDBOX, the program in COUNTERSIGN_BIN.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path

import httpx2
from mcp.client.streamable_http import streamable_http_client

PROGRAM = os.environ["COUNTERSIGN_BIN"]
WORLD = json.loads(Path(os.environ["COUNTERSIGN_SANDBOX"]).read_text())
CONFIG = WORLD["config"]
ANNA = WORLD["people"]["anna"]
MAX = WORLD["people"]["max"]
CHECKOUT = "prod-eu/shop/Deployment/checkout"
TOOLS = ["inspect", "operate", "change", "changes", "cancel", "rollback"]
PATIENCE = 40


def control(server, path, body=None):
    """One call of a sandbox server's control API."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{WORLD['control'][server]}/{path}", data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:
        return json.load(response)


async def press(name, button="Approve", user=ANNA):
    """Waits for the card of one change and presses a button on it; gives the card's text. A yes takes the number that
    the card shows, where it shows one."""
    query = urllib.parse.urlencode({"contains": name, "timeout_s": 15})
    chat = await asyncio.to_thread(control, "bot", f"chats/{user}?{query}")
    cards = [m for m in chat["messages"] if name in m["text"] and any(b["text"] == button for row in m["buttons"] for b in row)]
    assert cards, f"no card of {name} with {button} in {chat}"
    card = cards[-1]
    pressed = {"chat_id": user, "message_id": card["message_id"]}
    if button == "Approve":
        await asyncio.to_thread(control, "bot", "approve", pressed)
    else:
        await asyncio.to_thread(control, "bot", "press", {**pressed, "button": button})
    return card["text"]


def commit_of(change):
    """The commit on main that carries the change's trailer."""
    history = control("git", "history?repo=acme/shop&revision=main")
    ours = [c for c in history if f"Countersign-Change: {change}" in c["message"]]
    assert len(ours) == 1, f"{len(ours)} commits of {change} on main"
    return ours[0]


@contextlib.asynccontextmanager
async def daemon():
    """A daemon that serves HTTP; gives its process and its address. Ends with the block."""
    log = open(Path(CONFIG).parent / "daemon-of-clients.log", "a+b")  # its own file: what it says is read from it
    start = log.seek(0, os.SEEK_END)
    process = subprocess.Popen(
        [PROGRAM, "serve", "--http", "127.0.0.1:0", "--config", CONFIG], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log)
    try:
        for _ in range(PATIENCE * 20):
            log.seek(start)
            said = log.read().decode()
            if found := re.search(r"MCP at (http://\S+)", said):
                break
            assert process.poll() is None, f"the daemon ended: {said}"
            await asyncio.sleep(0.05)
        else:
            raise AssertionError(f"the daemon does not serve: {said}")
        yield process, found[1]
    finally:
        log.close()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)


def end_daemon():
    """Ends the daemon that a bridge started (it outlives its clients on purpose), and waits until it is gone."""
    path = str(Path(CONFIG).parent / "state/control.sock")
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        line.sendall(b'{"do":"shutdown"}\n')
        assert b"stopping" in line.recv(4096)
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.connect(path)
        except OSError:
            return
        time.sleep(0.05)
    raise AssertionError("the daemon does not end")


@contextlib.asynccontextmanager
async def http_transport(url):
    """The SDK's HTTP transport with the agent's bearer token."""
    token = Path(WORLD["agent_token_file"]).read_text().strip()
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE) as http:
        async with streamable_http_client(url, http_client=http) as streams:
            yield streams


def answer(result):
    """The structured answer of a tool call, which must not be an error."""
    assert not result.is_error, result
    return result.structured_content


def set_image(tag, reason):
    """Arguments of `operate` for another image of checkout."""
    edit = {"target": CHECKOUT, "set_image": {"container": "app", "image": f"reg.example/checkout:{tag}"}}
    return {"edits": [edit], "reason": reason}
