#!/usr/bin/env python3
"""One desired state (desired.json of a comparison of agents: dirs, files, links, execs, lines of one file) as a .vgo file.

usage: policy.py desired.json policy.vgo

The guard of a command is `creates`, which forks nothing.
"""
import json
import sys


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with open(sys.argv[1]) as source:
        wanted = json.load(source)
    out = ["name: bench", "resources:"]

    def resource(name, kind, **params):
        pairs = ", ".join("%s: %s" % (key, json.dumps(value)) for key, value in params.items())
        out.append("  - {name: %s, type: %s, %s}" % (name, kind, pairs))

    for n, one in enumerate(wanted["dirs"]):
        resource("d%d" % n, "directory", target_path=one["path"], mode=one["mode"])
    for n, one in enumerate(wanted["files"]):
        resource("f%d" % n, "file", target_path=one["path"], mode=one["mode"], content=one["content"])
    for n, one in enumerate(wanted["links"]):
        resource("l%d" % n, "symlink", target_path=one["path"], to=one["target"])
    for n, one in enumerate(wanted["execs"]):
        resource("e%d" % n, "exec", command=one["command"], creates=one["marker"])
    for n, line in enumerate(wanted["conf"]["lines"]):
        resource("c%d" % n, "file_line", target_path=wanted["conf"]["path"], line=line)
    with open(sys.argv[2], "w") as target:
        target.write("\n".join(out) + "\n")


if __name__ == "__main__":
    main()
