"""A change that goes by pull request; then octokit reads it from the forge, and works on one of its own.

Arguments: node, the folder with the npm packages. Prints octokit.mjs's own line.
"""

import asyncio
import secrets
import subprocess
import sys
from pathlib import Path

from mcp.client.client import Client

from sandbox import CONFIG, PATIENCE, WORLD, answer, control, daemon, http_transport, press, set_image


async def main(node, packages):
    policy = Path(CONFIG).parent / "policies/policy.yaml"
    before = policy.read_text()
    assert "deliver: direct" in before, before
    try:
        policy.write_text(before.replace("deliver: direct", "deliver: merge_after_approval"))
        async with daemon() as (_, url), Client(http_transport(url), read_timeout_seconds=PATIENCE) as client:
            asked = answer(await client.call_tool("operate", set_image("1.9.9", "octokit reads the pull request")))
            await press(asked["summary"].split()[0])
            for _ in range(PATIENCE):
                now = answer(await client.call_tool("change", {"change": asked["change"], "wait_s": 5}))
                if now["outcome"] != "waiting":
                    break
            assert now["outcome"] == "healthy", now
    finally:
        policy.write_text(before)
    pulls = control("forge", "pulls?repo=acme/shop")
    number = max(p["number"] for p in pulls)
    person = secrets.token_hex(20)
    control("forge", "users", {"login": "carol", "token": person, "kind": "User", "can_write": True})
    control("forge", "commit", {"repo": "acme/shop", "branch": "scale-web", "path": "web.txt", "content": "2\n"})
    bot = (Path(CONFIG).parent / "keys/forge-token").read_text().strip()
    script = Path(__file__).with_name("octokit.mjs")
    ran = subprocess.run([node, script, WORLD["forge_url"], bot, person, "acme", "shop", "scale-web", str(number), asked["change"]], cwd=packages)
    return ran.returncode


sys.exit(asyncio.run(main(*sys.argv[1:3])))
