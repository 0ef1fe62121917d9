"""Tables from what was measured."""

import random
from statistics import median

RESAMPLES = 1000
# Share of the processors that others may take.
QUIET = 0.03
TITLES = {
    "infer": "Inference",
    "train": "A step of training",
    "eager": "Eager ops",
    "start": "Fresh process to first output",
    "compile": "Compiling",
}
NOTES = {
    "infer": "Weights, inputs and the place of the output are there before the clock starts.",
    "train": "Forward with dropout where the model has any, loss, backward, optimizer. Memory is "
    "what the process grew by over what it held before the first step.",
    "eager": "Four elements, or a view of 64; one thread.",
    "start": "The MLP at batch 1, one thread: `sinter-run` with an artifact until it has ended, "
    "Python with the peer until the output is there. Files are in memory.",
    "compile": "Sinter from the model to code that is ready to run, ONNX Runtime and OpenVINO "
    "from the ONNX file; repeated in one process. torch.compile once, without its caches, after "
    "it compiled something else.",
}


def ratio(peer, ours):
    """How many times as long the peer takes: the median over rounds, and the interval it
    lies in with 95 % confidence (the percentile bootstrap over rounds)."""
    pairs = [p / o for p, o in zip(peer, ours)]
    draw = random.Random(len(pairs))
    values = sorted(median(draw.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    return median(pairs), values[RESAMPLES // 40], values[-1 - RESAMPLES // 40]


def verdict(peer, ours):
    value, low, high = ratio(peer, ours)
    if low <= 1 <= high:
        return f"{value:.2f}, can't tell"
    return f"{value:.2f}" if value > 1 else f"{value:.2f}, Sinter loses"


def time(ns):
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}" if ns < 100 * size else f"{ns / size:.0f} {unit}"
    return f"{ns:.3g} ns"


def megabytes(b):
    return f"{b / 1e6:.1f} MB"


def count(n, what):
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def timed_rows(label, engines, index, memory=()):
    """Rows of engines that were timed in rounds, entry `index` of each turn, and of memory
    what is named."""
    of = {e: [r[index] for r in v["rounds"]] for e, v in engines.items()}
    for engine, turns in of.items():
        middle = [t["median"] for t in turns]
        row = [label, engine, time(median(middle)), time(min(t["min"] for t in turns)),
               time(median(t["cpu"] for t in turns))]
        ours = [t["median"] for t in of["sinter"]] if "sinter" in of else None
        row.append(verdict(middle, ours) if ours and engine != "sinter" else "")
        yield row + [megabytes(engines[engine]["memory"][name]) for name in memory]


def table(section, cases):
    """Head and rows of a section."""
    head = ["", "engine", "median", "min", "CPU", "× Sinter"]
    if section == "infer":
        head += ["peak resident"]
        rows = [row for c in cases for row in timed_rows(
            f"{c['model']}, batch {c['batch']}, {count(c['threads'], 'thread')}",
            c["engines"], 0, ["peak"])]
    elif section == "train":
        head += ["memory", "peak resident"]
        rows = [row for c in cases for row in timed_rows(
            f"{c['model']}, {c['method']}, batch {c['batch']}, {count(c['threads'], 'thread')}",
            c["engines"], 0, ["growth", "peak"])]
    elif section == "eager":
        engines = cases[0]["engines"]
        names = [t["name"] for t in next(iter(engines.values()))["rounds"][0]]
        rows = [row for i, name in enumerate(names) for row in timed_rows(name, engines, i)]
    elif section == "start":
        head = ["", "engine", "median", "min", "× Sinter", "peak resident"]
        rows = [row for c in cases for row in start_rows(c["engines"])]
    else:
        head = ["", "engine", "median", "first", "× Sinter"]
        rows = [row for c in cases for row in compile_rows(c)]
    return head, rows


def start_rows(engines):
    for engine, v in engines.items():
        seconds = [r["seconds"] for r in v["rounds"]]
        ours = [r["seconds"] for r in engines["sinter"]["rounds"]] if "sinter" in engines else None
        yield ["mlp, batch 1", engine, time(median(seconds) * 1e9), time(min(seconds) * 1e9),
               verdict(seconds, ours) if ours and engine != "sinter" else "",
               megabytes(max(r["peak"] for r in v["rounds"]))]


def compile_rows(case):
    ours = case["engines"].get("sinter", {}).get("compile")
    for engine, v in case["engines"].items():
        if seconds := v["compile"]:
            paired = ours and engine != "sinter"
            yield [f"{case['model']}, batch {case['batch']}", engine,
                   time(median(seconds) * 1e9), time(seconds[0] * 1e9),
                   verdict(seconds * (len(ours) if len(seconds) == 1 else 1), ours)
                   if paired else ""]


def tables(results, sections):
    for section in sections:
        source = "infer" if section == "compile" else section
        cases = [c for c in results["cases"] if c["section"] == source]
        if section == "compile" and cases:
            cases = [c for c in cases if c["threads"] == cases[0]["threads"]]
        if cases:
            head, rows = table(section, cases)
            # A case is named once.
            shown = [[row[0] if i == 0 or rows[i - 1][0] != row[0] else "", *row[1:]]
                     for i, row in enumerate(rows)]
            yield section, head, rows, shown


def about(results):
    s = results["system"]
    versions = ", ".join(f"{n} {v}" for n, v in s["versions"].items())
    yield f"{s['date']}; {s['cpu']}; {versions}; {results['rounds']} rounds."
    if s["others"] > QUIET:
        yield ""
        yield (f"The machine was not idle: others took {s['others']:.0%} of the processors while "
               "it measured. That hurts most whoever lets threads wait for each other: these ratios "
               "are no claims.")


def sizes(results):
    for c in results["cases"]:
        if "sizes" in c:
            return ", ".join(f"{n} {megabytes(b)}" for n, b in c["sizes"].items())
    return None


def losses(found):
    for section, head, rows, _ in found:
        at = head.index("× Sinter")
        for row in rows:
            if row[at].endswith("loses"):
                times = row[at].split(",")[0]
                yield f"{TITLES[section]}: {row[0]}: {row[1]} takes {times} of Sinter's time."
        ours = {row[0]: row for row in rows if row[1] == "sinter"}
        for at in (i for i, name in enumerate(head) if name in ("memory", "peak resident")):
            for row in rows:
                mine = ours.get(row[0], row)[at]
                # Eager Sinter has no compiler in memory: that is no loss.
                if row[1] != "sinter-eager" and float(row[at].split()[0]) < float(mine.split()[0]):
                    yield f"{TITLES[section]}: {row[0]}: {head[at]} {mine}, {row[1]} {row[at]}."


def text(results, sections):
    out = list(about(results))
    found = list(tables(results, sections))
    for section, head, _, shown in found:
        widths = [max(len(r[i]) for r in [head, *shown]) for i in range(len(head))]
        out += ["", TITLES[section], NOTES[section], ""]
        out += ["  ".join(c.ljust(w) for c, w in zip(r, widths)).rstrip() for r in [head, *shown]]
    out += ["", f"Sizes: {sizes(results)}"] if sizes(results) else []
    out += ["", "Where Sinter loses:", *(list(losses(found)) or ["nowhere here"])]
    return "\n".join(out)


def markdown(results, sections):
    out = [
        "# Results",
        "",
        *about(results),
        "",
        "Written by `benches/peers/run --markdown`; [peers/README.md](peers/README.md) says how "
        "this is measured. `× Sinter` is how many times as long as Sinter an engine takes: the "
        "median over rounds, in each of which every engine had its turn. Where the interval that "
        "it lies in with 95 % confidence includes 1, the table says so: can't tell.",
    ]
    found = list(tables(results, sections))
    for section, head, _, shown in found:
        out += ["", f"## {TITLES[section]}", "", NOTES[section], ""]
        out += ["| " + " | ".join(head) + " |", "|---|---|" + "--:|" * (len(head) - 2)]
        out += ["| " + " | ".join(r) + " |" for r in shown]
    if sizes(results):
        out += ["", f"Sizes: {sizes(results)}."]
    out += ["", "## Where Sinter loses", ""]
    out += [f"- {line}" for line in losses(found)] or ["Nowhere in these tables."]
    return "\n".join(out) + "\n"
