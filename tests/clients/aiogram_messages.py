"""aiogram (PyPI) parses every message that Countersign sends, and every answer and update that it gets.

A proxy between Countersign and the sandbox's Bot API keeps both sides of each call. One change is
rejected, one approved; a person stops everything in the chat; one resumes on the command line and
another in the chat. Then aiogram's own types
must take every request and every answer. Prints one line; exit code 1 with the reason when something does not hold.
"""

import asyncio
import email
import json
import subprocess
from collections import Counter
from pathlib import Path

import aiogram.methods
from aiogram.methods.base import Response
from aiohttp import ClientSession, ClientTimeout, web
from mcp.client.client import Client

from sandbox import (
    ANNA, CONFIG, MAX, PATIENCE, PROGRAM, WORLD, answer, control, daemon, http_transport, press, set_image,
)

METHODS = {name.lower(): getattr(aiogram.methods, name) for name in aiogram.methods.__all__}
calls = []


def form_fields(content_type, body):
    """The fields of a multipart body; a reference to an attached file becomes the file's name."""
    whole = email.message_from_bytes(b"content-type: " + content_type.encode() + b"\r\n\r\n" + body)
    fields, files = {}, {}
    for part in whole.get_payload():
        name = part.get_param("name", header="content-disposition")
        if part.get_filename():
            files[f"attach://{name}"] = part.get_filename()
        else:
            fields[name] = part.get_payload(decode=True).decode()
    return {k: files.get(v, v) for k, v in fields.items()}


async def forward(request):
    """Passes a call on and keeps it."""
    body = await request.read()
    headers = {"content-type": request.headers.get("content-type", "application/json")}
    fields = {}
    if request.content_type == "application/json" and body:
        fields = json.loads(body)
    elif request.content_type == "multipart/form-data":
        fields = form_fields(request.headers["content-type"], body)
    async with ClientSession(timeout=ClientTimeout(total=120)) as http:
        async with http.request(request.method, WORLD["bot_api_url"] + request.path_qs, data=body, headers=headers) as got:
            content = await got.read()
            calls.append((request.path.rsplit("/", 1)[-1], fields, got.status, content))
            return web.Response(status=got.status, body=content, content_type=got.content_type)


def take(method, fields, status, content):
    """Both sides of one call through aiogram's types; a parameter that is not of the method is refused."""
    kind = METHODS[method.lower()]
    decoded = {k: json.loads(v) if isinstance(v, str) and v[:1] in "[{" and k not in ("text", "caption") else v for k, v in fields.items()}
    for name in decoded:
        assert name in kind.model_fields, f"{method} has no parameter {name}"
    if "document" in decoded:
        assert decoded["document"].endswith((".diff", ".txt", ".patch")), decoded["document"]
    kind.model_validate(decoded)
    answered = Response[kind.__returning__].model_validate_json(content)
    assert answered.ok == (status == 200), (method, status, content)
    if answered.ok and method.lower() in ("sendmessage", "senddocument"):
        for entity in answered.result.entities or []:
            assert entity.extract_from(answered.result.text), f"an entity beside the text: {entity}"
    return answered


async def story(url):
    """Everything that makes Countersign write into a chat."""
    async with Client(http_transport(url), read_timeout_seconds=PATIENCE) as client:
        rejected = answer(await client.call_tool("operate", set_image("1.9.7", "to be rejected: <b>*_`[x](y) 🦀")))
        await press(rejected["summary"].split()[0], "Reject…")
        asked = answer(await client.call_tool("operate", set_image("1.9.8", "aiogram reads along")))
        name = asked["summary"].split()[0]
        await press(name, "Full diff")
        await press(name)
        for _ in range(PATIENCE):
            now = answer(await client.call_tool("change", {"change": asked["change"], "wait_s": 5}))
            if now["outcome"] != "waiting":
                break
        assert now["outcome"] == "healthy", now
    for words in ("what is this?", "/stop@countersign_sandbox_bot it burns"):
        await asyncio.to_thread(control, "bot", "say", {"user_id": ANNA, "text": words})
    await until_stopped()
    resume = [PROGRAM, "resume", "--config", CONFIG, "--key", WORLD["ssh_key_of_anna"], "the test goes on"]
    done = await asyncio.to_thread(subprocess.run, resume, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done
    # Two people must agree.
    await asyncio.to_thread(control, "bot", "say", {"user_id": MAX, "text": "/resume"})
    await press("To resume", "Resume", MAX)
    await until_stopped(False)


async def until_stopped(wanted=True):
    """Until the daemon says that the stop is on, or off."""
    for _ in range(PATIENCE * 5):
        status = await asyncio.to_thread(subprocess.run, [PROGRAM, "status", "--config", CONFIG], capture_output=True, text=True)
        if ("STOPPED by" in status.stdout) == wanted:
            return
        await asyncio.sleep(0.2)
    raise AssertionError(f"not stopped or not resumed: {status.stdout}")


async def main():
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{any:.*}", forward)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    resources = Path(CONFIG).parent / "resources/all.yaml"
    before = resources.read_text()
    through = before.replace(WORLD["bot_api_url"], f"http://127.0.0.1:{port}")
    assert through != before, "the configuration does not name the Bot API"
    try:
        resources.write_text(through)
        async with daemon() as (_, url):
            await story(url)
    finally:
        resources.write_text(before)
        await runner.cleanup()
    taken = Counter(method for call in calls for method in [call[0]] if take(*call))
    lowered = {m.lower() for m in taken}
    assert {"getupdates", "sendmessage", "answercallbackquery", "editmessagetext", "senddocument"} <= lowered, taken
    print(json.dumps({"aiogram messages": dict(sorted(taken.items()))}))


asyncio.run(main())
