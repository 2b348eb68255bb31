"""A whole run as one document, which bench.schema.json describes, and its short form in docs/benchmarks.md."""
import pathlib

from bench_support import build_facts, results, tables

FORMAT, VERSION = "gyre-bench", 1
BEGIN, END = "<!-- last full run: begin -->", "<!-- last full run: end -->"


def make(facts, session, missing, suites, seconds):
    return {
        "format": FORMAT, "version": VERSION, "seconds": round(seconds, 1), "host": facts,
        "build": build_facts.of(session.build),
        "peers": {peer.name: {"title": peer.peer.title, "program": peer.program.name, "version": peer.version,
                              "file_bytes": peer.program.stat().st_size} for peer in session.peers},
        "missing": missing,
        "settings": {"runs": session.runs, "warmup": session.warmup, "quick": session.quick, "density_mib": session.density_mib},
        "suites": [results.suite_data(suite) for suite in suites],
    }


def host_lines(whole):
    """What a reader must know of the machine, a fact a line."""
    facts = whole["host"]
    kvm, parameters = facts["kvm"]["modules"], facts["kvm"]["parameters"]
    virtual = ", itself a virtual machine" if facts["cpu"]["virtualised"] else ""
    nx_huge_pages = next((value for name, value in parameters.items() if name.endswith("nx_huge_pages")), "not visible")
    lines = [
        f"{facts['cpu']['model']}, {facts['cpu']['count']} CPUs{virtual}, {facts['memory_mib']} MiB, governor {facts['governor']}",
        f"Linux {facts['kernel']}; KVM: {', '.join(kvm) or 'no module visible'}, nx_huge_pages {nx_huge_pages}; "
        f"cgroup {facts['cgroups']['cgroup']}, favordynmods {'on' if facts['cgroups']['favordynmods'] else 'off'}",
        f"load {' '.join(facts['load_before'])} before, {' '.join(facts['load_after'])} after; {facts['date']}, "
        f"commit {facts['commit']}, {whole['seconds'] / 60:.0f} minutes",
        f"{whole['settings']['runs']} runs of each peer after {whole['settings']['warmup']} warm-up rounds where a start is measured",
    ]
    lines += [f"{peer['title']}: {peer['version'] or 'of this commit'}" for peer in whole["peers"].values()]
    if float(facts["load_before"][0]) > facts["cpu"]["count"] / 2:
        lines.append("**Something else was running: figures scatter, and ratios are of a busy machine.**")
    return lines


def write_docs(path, whole):
    """Replaces what stands between the two marks."""
    path = pathlib.Path(path)
    text = path.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    if not tail:
        raise SystemExit(f"bench: {path} has no {END}")
    body = [BEGIN, "", *(f"* {line}" for line in host_lines(whole)), ""]
    body += tables.markdown(whole)
    path.write_text(head + "\n".join(body) + "\n" + END + tail, encoding="utf-8")
    return path
