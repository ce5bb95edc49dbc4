"""One run of the load against one way to serve it: starts `baton serve`, sends the trace, notes the share twice a second.

Knows no other run.
"""

import contextlib
import json
import re
import signal
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import load

PORT = 18_970
URL = f"http://127.0.0.1:{PORT}"
START_S_MAX = 120


def run(baton, model, way, seed, slowness):
    """Runs the load of this seed. Returns its requests, and the share of prefill over time."""
    with tempfile.TemporaryDirectory(prefix="baton-policies-") as folder:
        trace = Path(folder) / "trace.jsonl"
        trace.write_text("".join(json.dumps(row) + "\n" for row in load.rows(seed, slowness)))
        targets = load.classes(slowness)
        slos = [f"--slo={name}=ttft_ms:{slo['ttft_ms']},tpot_ms:{slo['tpot_ms']}" for name, slo in targets.items()]
        with served(baton, model, way, targets, folder) as admin, Shares(admin) as shares:
            records = bench(baton, folder, "--trace", trace, "--send-class", *slos)
    requests = [judged(record, targets) for record in records]
    return {"way": way, "seed": seed, "slowness": slowness, "requests": requests, "shares": shares.seen}


def slowness(baton, model):
    """How much slower this machine is now than the one of the load: mean of prompts and decodes."""
    with tempfile.TemporaryDirectory(prefix="baton-policies-") as folder:
        with served(baton, model, "aggregated-auto", load.classes(1.0), folder):
            closed = lambda *load_of: bench(baton, folder, "--concurrency", *map(str, load_of))
            prompts = closed(1, "--limit", 16, "--input-tokens", 400, "--output-tokens", 1)
            decodes = closed(4, "--limit", 16, "--input-tokens", 30, "--output-tokens", 64)
    prompt_ms = statistics.median(record["ttft_ms"] for record in prompts)
    step_ms = statistics.median(record["tpot_ms"] for record in decodes)
    return (prompt_ms / load.PROMPT_MS * step_ms / load.STEP_MS) ** 0.5


@contextlib.contextmanager
def served(baton, model, way, targets, folder):
    """Serves the model; gives the admin address of a co-located worker, or None."""
    config, log = Path(folder) / "serve.toml", Path(folder) / "serve.log"
    config.write_text(configuration(way, targets))
    command = [baton, "serve", "--model", model, "--port", str(PORT), "--config", config, "--mode", mode(way)]
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            yield wait_until_ready(server, log)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(timeout=60)


def mode(way):
    """Mode of a way to serve: `aggregated-auto`, `aggregated-constant`, `disaggregated`, or a policy such as `fixed-40`."""
    name = way.partition("-")[0]
    return name if name in ("aggregated", "disaggregated") else "colocated"


def configuration(way, targets):
    """Configuration of `baton serve`. Controllers hold the targets of the first class; others count in proportion."""
    first = next(iter(targets))
    of_class = lambda name, slo: f'{{ name = "{name}", ttft_ms = {slo["ttft_ms"]}, tpot_ms = {slo["tpot_ms"]} }}'
    lines = ["[router.slo]", f'default_class = "{first}"']
    lines += [f"classes = [{', '.join(of_class(name, slo) for name, slo in targets.items())}]"]
    lines += ["[engine]", 'prefix_cache = "off"']
    policy, _, detail = way.partition("-")
    if mode(way) == "colocated":
        lines += ["[engine.share]", f'policy = "{policy}"', *(f"{key} = {ms}" for key, ms in targets[first].items())]
        lines += [f"prefill_percent = {detail}"] if detail else []
    elif detail:
        lines += ["[engine.scheduling]", f'step_budget = "{detail}"']
    return "\n".join(lines) + "\n"


def bench(baton, folder, *arguments):
    """Sends requests, and returns what is known of each."""
    records = Path(folder) / "records.jsonl"
    command = [baton, "bench", "--target", URL, "--records", records, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"baton bench ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return [json.loads(line) for line in records.read_text().splitlines()]


def wait_until_ready(server, log):
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline and server.poll() is None:
        text = log.read_text()
        if re.search(r"^router +ready", text, re.M):
            found = re.search(r"^colocated-0 .* admin (http://\S+)", text, re.M)
            return found and found[1]
        time.sleep(0.1)
    raise SystemExit(f"the server did not start:\n{log.read_text()}")


def judged(record, targets):
    """What counts of a request: when it was due, its latencies, and if it met both targets of its class."""
    slo, ttft, tpot = targets[record["class"]], record["ttft_ms"], record["tpot_ms"]
    met = record["failure"] is None and ttft <= slo["ttft_ms"] and (tpot is None or tpot <= slo["tpot_ms"])
    kept = {key: record[key] for key in ("row", "class", "planned_ms", "ttft_ms", "tpot_ms", "end_ms", "failure")}
    return {**kept, "met": met}


class Shares:
    """Share of prefill over time, in per cent, as the worker's admin address tells it, and why it is so."""

    def __init__(self, admin):
        self.admin, self.seen, self.ended = admin, [], threading.Event()

    def __enter__(self):
        self.began = time.monotonic()
        self.thread = threading.Thread(target=self.look)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def look(self):
        while self.admin and not self.ended.wait(0.5):
            with urllib.request.urlopen(f"{self.admin}/debug/partition", timeout=5) as answer:
                partition = json.load(answer)
            split, last = partition["split"], partition["last_decision"]
            share = split["prefill_percent"] if isinstance(split, dict) else None
            decision = {key: last[key] for key in ("reason", "measured", "predicted", "window")}
            self.seen.append({"at_s": time.monotonic() - self.began, "prefill_percent": share, **decision})
