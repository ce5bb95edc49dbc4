"""Compares Baton's modes with llama.cpp's `llama-server`: the same weights, closed loops of 1, 4 and 16 requests.

usage: llama_server.py BATON MODEL_DIR LLAMA_SERVER MODEL.gguf OUT.json [ROUNDS]

Prompts of 256 random tokens, answers of 64, prefix caches off, two threads each, servers in turn. to_gguf.py makes the file.
"""

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import load
import run

WAYS = ("aggregated-auto", "aggregated-constant", "fixed-50", "oversubscribed", "feedback", "predictive", "disaggregated")
CONCURRENCY = {1: 6, 4: 16, 16: 48}
"""Requests at a time, and how many."""
INPUT, OUTPUT = 256, 64
LLAMA = "llama-server"


def main(baton, model, llama, gguf, out, rounds="3"):
    seen = []
    for number in range(int(rounds)):
        for way in (LLAMA, *WAYS):
            with tempfile.TemporaryDirectory(prefix="baton-compare-") as folder:
                server = llama_served(llama, gguf) if way == LLAMA else run.served(baton, model, way, load.classes(1.0), folder)
                with server:
                    for concurrency, requests in CONCURRENCY.items():
                        # Each round and each server has prompts of its own: nothing is found in a cache.
                        seed = str(1 + len(seen))
                        arguments = ["--concurrency", str(concurrency), "--limit", str(requests), "--seed", seed]
                        arguments += ["--input-tokens", str(INPUT), "--output-tokens", str(OUTPUT), "--warmup-requests", "2"]
                        records = run.bench(baton, folder, *arguments)
                        seen.append({"round": number, "way": way, "concurrency": concurrency, **measured(records)})
                        print(json.dumps(seen[-1]), flush=True)
    Path(out).write_text(json.dumps(seen))
    table(seen)


def measured(records):
    """Output tokens per second from the first send to the last end, and gaps between tokens."""
    records = [record for record in records if not record["warm_up"]]
    failed = sum(record["failure"] is not None for record in records)
    done = [record for record in records if record["failure"] is None]
    span_s = (max(record["end_ms"] for record in done) - min(record["sent_ms"] for record in done)) / 1_000
    gaps = sorted(gap for record in done for gap in gaps_of(record))
    return {
        "tokens_s": sum(record["output_tokens"] for record in done) / span_s,
        "itl_p50_ms": statistics.median(gaps),
        "itl_p99_ms": gaps[int(0.99 * (len(gaps) - 1))],
        "ttft_p50_ms": statistics.median(record["ttft_ms"] for record in done),
        "failed": failed,
    }


def gaps_of(record):
    times = record["token_ms"]
    return [later - earlier for earlier, later in zip(times, times[1:])]


@contextlib.contextmanager
def llama_served(llama, gguf):
    context = str(max(CONCURRENCY) * 512)
    command = [llama, "-m", gguf, "-np", str(max(CONCURRENCY)), "-t", "2", "-tb", "2", "-c", context, "--port", str(run.PORT)]
    command += ["--no-cache-prompt", "--no-webui", "--no-warmup"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + run.START_S_MAX
        while not is_healthy():
            if time.monotonic() > deadline or server.poll() is not None:
                raise SystemExit("llama-server did not start")
            time.sleep(0.2)
        yield
    finally:
        server.terminate()
        server.wait(timeout=60)


def is_healthy():
    try:
        return urllib.request.urlopen(f"{run.URL}/health", timeout=5).status == 200
    except (urllib.error.URLError, ConnectionError):
        return False


def table(seen):
    """Medians of the rounds; ratios are of the medians."""
    median = lambda way, concurrency, key: statistics.median(
        one[key] for one in seen if (one["way"], one["concurrency"]) == (way, concurrency)
    )
    print("| | " + " | ".join(f"{count} at a time: tokens/s, ratio, ITL p50, p99, TTFT p50" for count in CONCURRENCY) + " |")
    print("|---" * (1 + len(CONCURRENCY)) + "|")
    for way in (LLAMA, *WAYS):
        cells = []
        for count in CONCURRENCY:
            rate, theirs = (median(name, count, "tokens_s") for name in (way, LLAMA))
            times = [f"{median(way, count, key):.0f}" for key in ("itl_p50_ms", "itl_p99_ms", "ttft_p50_ms")]
            cells.append(f"{rate:.1f}, {rate / theirs:.2f}, {', '.join(times)}")
        print(f"| {way} | {' | '.join(cells)} |")


if __name__ == "__main__":
    if len(sys.argv) not in (6, 7):
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
