"""A stand-in for `gcloud` with a cloud behind it: a TPU that comes and goes, and workers on which commands really run.

Its state is the folder $CLOUD: `state` (of the TPU; without the file there is none), `workers/NUMBER` (a home directory
each), `calls` (a JSON list a line), and `plan.json`: for create and ssh, what the next calls do instead of succeeding,
used up one by one, null being a success:

    create  {"says": TEXT}, a refusal
    ssh     {"lost": NUMBER}, a worker that does not answer
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

WORKERS = 2


def main() -> int:
    """One call."""
    cloud, arguments = Path(os.environ["CLOUD"]), sys.argv[1:]
    with (cloud / "calls").open("a") as calls:
        print(json.dumps(arguments), file=calls)
    verb = arguments[3]
    event = next_event(cloud / "plan.json", verb) or {}
    state, workers = cloud / "state", cloud / "workers"
    if verb == "list":
        found = state.read_text() if state.exists() else ""
        print(found, end="")
        if found == "SUSPENDING":
            state.write_text("SUSPENDED")
    elif verb == "create":
        if "says" in event:
            print(event["says"], file=sys.stderr)
            return 1
        assert not state.exists(), "created twice"
        state.write_text("ACTIVE")
        for number in range(WORKERS):
            (workers / str(number)).mkdir(parents=True)
    elif verb == "delete":
        state.unlink()
        shutil.rmtree(workers, ignore_errors=True)
    else:
        return ssh(workers, arguments[-1].removeprefix("--command="), event.get("lost"))
    return 0


def next_event(plan_file: Path, verb: str) -> dict | None:
    """What the plan has for this call, which it is then rid of."""
    plan = json.loads(plan_file.read_text())
    events = plan.get(verb, [])
    event = events.pop(0) if events else None
    plan_file.write_text(json.dumps(plan))
    return event


def ssh(workers: Path, command: str, lost: int | None) -> int:
    """The command on every worker but a lost one; fails if it did on one."""
    worst = 0
    for number in range(WORKERS):
        home = workers / str(number)
        if number == lost or not home.exists():
            print(f"ssh: connect to worker {number}: Connection timed out", file=sys.stderr)
            worst = 255
            continue
        done = subprocess.run(["sh", "-c", command], cwd=home, env=os.environ | {"HOME": str(home)}, check=False)
        worst = max(worst, done.returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
