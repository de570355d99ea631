"""The Python MCP SDK (PyPI `mcp`) lists the tools and runs one change.

Argument: `stdio` (through the bridge, which starts the daemon) or `http`. Prints one line; exit code 1 with the
reason when something does not hold.
"""

import asyncio
import json
import os
import re
import sys
import time

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters

from sandbox import CHECKOUT, CONFIG, PATIENCE, PROGRAM, TOOLS, answer, commit_of, daemon, end_daemon, http_transport, press, set_image


async def one_change(client, tag):
    """Tools, prompts, and one change from the call to health."""
    listed = (await client.list_tools()).tools
    names = [t.name for t in listed]
    assert names == TOOLS, names
    assert all(t.output_schema for t in listed)
    size = len(json.dumps([t.model_dump(by_alias=True, exclude_none=True) for t in listed], separators=(",", ":")))
    assert size <= 12 * 1024, f"tools/list has {size} bytes"
    prompts = (await client.list_prompts()).prompts
    assert prompts and all(p.description for p in prompts)

    seen = answer(await client.call_tool("inspect", {"target": CHECKOUT}))
    assert "shop-prod" in seen["summary"], seen
    refused = await client.call_tool("operate", {**set_image(tag, "unknown argument"), "approve": True})
    assert refused.is_error and refused.structured_content["problem"]["code"].startswith("input."), refused

    asked = answer(await client.call_tool("operate", set_image(tag, f"the Python SDK asks for {tag}")))
    assert asked["outcome"] == "waiting" and asked["change"], asked
    name = re.search(r"cs-\w+", asked["summary"])[0]
    card = await press(name)
    assert tag in card and "unverified" in card, card

    said = []

    async def progress(_step, _total, message):
        said.append(message)

    end = time.monotonic() + PATIENCE
    while True:
        now = answer(await client.call_tool("change", {"change": asked["change"], "wait_s": 10}, progress_callback=progress))
        if now["outcome"] != "waiting":
            break
        assert time.monotonic() < end, f"still waiting: {now}"
    assert now["outcome"] == "healthy", now
    commit = commit_of(asked["change"])
    assert "Countersign-Approved-By: anna" in commit["message"], commit
    everything = answer(await client.call_tool("changes", {"state": "all"}))
    assert asked["change"] in json.dumps(everything), everything
    assert said, "no progress while the change was waited for"
    return {"tools": len(names), "bytes": size, "prompts": len(prompts), "protocol": client.protocol_version, "change": now["outcome"]}


async def over_stdio(mode):
    # The bridge starts the daemon for the first client; the second joins it.
    server = StdioServerParameters(command=PROGRAM, args=["serve", "--config", CONFIG], env=dict(os.environ))
    async with Client(server, mode=mode, read_timeout_seconds=PATIENCE) as client:
        return await one_change(client, "1.9.1" if mode == "auto" else "1.9.3")


async def over_http(mode):
    async with daemon() as (_, url):
        async with Client(http_transport(url), mode=mode, read_timeout_seconds=PATIENCE) as client:
            return await one_change(client, "1.9.4" if mode == "auto" else "1.9.5")


async def main(face):
    run = {"stdio": over_stdio, "http": over_http}[face]
    # Both protocol generations: the one that is discovered, and the one with a handshake.
    results = [await run("auto"), await run("legacy")]
    if face == "stdio":
        end_daemon()
    print(json.dumps({f"mcp {face}": results}))


asyncio.run(main(sys.argv[1]))
