"""A change as a task (io.modelcontextprotocol/tasks) still answers after SIGKILL of the daemon and a new start.

JSON-RPC over HTTP, as any client sends it. Prints one line; exit code 1 with the reason when something does not hold.
"""

import asyncio
import itertools
import json
import time
from pathlib import Path

import httpx2

from sandbox import PATIENCE, WORLD, commit_of, daemon, press, set_image

REVISION = "2026-07-28"
TOKEN = Path(WORLD["agent_token_file"]).read_text().strip()
IDS = itertools.count(1)


async def call(url, method, params):
    """One request of a client that takes tasks; its result."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": REVISION,
        "io.modelcontextprotocol/clientInfo": {"name": "tasks", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"extensions": {"io.modelcontextprotocol/tasks": {}}},
    }
    headers = {
        "Authorization": f"Bearer {TOKEN}", "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": REVISION, "Mcp-Method": method, "Mcp-Name": params.get("name") or params["taskId"],
    }
    body = {"jsonrpc": "2.0", "id": next(IDS), "method": method, "params": {**params, "_meta": meta}}
    async with httpx2.AsyncClient(timeout=PATIENCE) as http:
        response = await http.post(url, headers=headers, json=body)
    lines = [line[5:] for line in response.text.splitlines() if line.startswith("data:")] or [response.text]
    messages = [json.loads(line) for line in lines if line.strip()]
    answers = [m for m in messages if m.get("id") == body["id"]]
    assert answers and "result" in answers[0], response.text
    return answers[0]["result"]


async def main():
    async with daemon() as (process, url):
        arguments = set_image("1.9.6", "a task that must survive")
        task = await call(url, "tools/call", {"name": "operate", "arguments": arguments})
        assert task["resultType"] == "task" and task["status"] == "working", task
        process.kill()
        process.wait(PATIENCE)
    async with daemon() as (process, url):
        again = await call(url, "tasks/get", {"taskId": task["taskId"]})
        assert again["status"] == "working" and again["taskId"] == task["taskId"], again
        assert again["createdAt"] == task["createdAt"], (again, task)
        await press(again["statusMessage"].split()[0])
        end = time.monotonic() + PATIENCE
        while (now := await call(url, "tasks/get", {"taskId": task["taskId"]}))["status"] == "working":
            assert time.monotonic() < end, f"still working: {now}"
            await asyncio.sleep(min(0.5, now["pollIntervalMs"] / 1000))
        assert now["status"] == "completed", now
        assert now["result"]["structuredContent"]["outcome"] == "healthy", now
        commit_of(task["taskId"])
    print(json.dumps({"tasks": {"killed": "SIGKILL", "then": now["status"]}}))


asyncio.run(main())
