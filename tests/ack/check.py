"""Runs `agentack check` on every trace; compares what it found with and without each control.

Arguments: AgentAck's policy, the folder with one folder of traces for each run (`all-on`, and one per control that
is off, each with a walk.json that says which rule must fail).
"""

import collections
import contextlib
import io
import json
import pathlib
import sys

from agentack.cli import main as agentack

RULES = [f"ACK{n:03}" for n in range(1, 10)]
# What the histories must have been through, for a pass to mean anything.
MUST_HAVE = [
    "executions",
    "stops",
    "restarts",
    "the disk is full",
    "a change is damaged in memory",
    "killed between an effect and its result",
    "undone by somebody else",
    "press: This card was sent to",
    "press: This button is not one of",
    "proposal: change.rejected_recently",
    "proposal: change.overlap",
    "journal: journal.moved",
    "proposal: journal.unavailable",
    "ended: Rejected",
    "ended: Expired",
    "ended: Cancelled",
    "ended: Stale",
]


def check(trace: pathlib.Path, policy: str) -> dict:
    """One call of AgentAck's own command line; its exit code must agree with its report."""
    report = trace.with_suffix(".report.json")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        code = agentack(["check", str(trace), "--policy", policy, "--json", str(report)])
    if code not in (0, 1, 3):
        sys.exit(f"ack: {trace.name} was not read: {said.getvalue()}")
    found = find(json.loads(report.read_text()))
    report.unlink()
    if found["status"] != {0: "PASS", 1: "FAIL", 3: "INCOMPLETE"}[code]:
        sys.exit(f"ack: {trace.name}: exit code {code}, report {found['status']}")
    return found


def find(report: dict) -> dict:
    """The result inside the report's envelope."""
    if "rule_counts" in report:
        return report
    for value in report.values():
        if isinstance(value, dict) and (inner := find(value)):
            return inner
    return {}


def run(folder: pathlib.Path, policy: str) -> tuple[collections.Counter, int, int]:
    found, events, traces = collections.Counter(), 0, sorted(folder.glob("*.jsonl"))
    for trace in traces:
        result = check(trace, policy)
        found.update(result["rule_counts"])
        events += result["event_count"]
        if result["findings"] and folder.name == "all-on":
            print(f"{trace.name}: {json.dumps(result['findings'][0])}")
    return found, events, len(traces)


def main() -> int:
    policy, root = sys.argv[1], pathlib.Path(sys.argv[2])
    normal, events, traces = run(root / "all-on", policy)
    seen = json.loads((root / "all-on" / "walk.json").read_text())["seen"]
    for what, n in sorted(seen.items()):
        print(f"{n:>8}  {what}")
    print(f"{traces} traces, {events} events")
    missing = [m for m in MUST_HAVE if not any(k.startswith(m) for k in seen)]
    if missing:
        print("never happened: " + ", ".join(missing))
    passed = set()
    for folder in sorted(p for p in root.iterdir() if p.is_dir() and p.name != "all-on"):
        walk = json.loads((folder / "walk.json").read_text())
        rule, (found, _, _) = walk["rule"], run(folder, policy)
        others = ", ".join(f"{r} {n}" for r, n in sorted(found.items()) if r != rule)
        print(
            f"{rule}  {'pass' if not normal[rule] else 'FAIL':<4} {normal[rule]} findings; without {folder.name}: "
            f"{found[rule]}{'' if found[rule] else '  <-- the rule does not notice'}"
            f"{' (and ' + others + ')' if others else ''}"
        )
        if rule in RULES and not normal[rule] and found[rule]:
            passed.add(rule)
    print(f"rules={len(RULES)} passed={0 if missing else len(passed)} histories={seen.get('changes', 0)}")
    return 0 if len(passed) == len(RULES) and not missing else 1


sys.exit(main())
