#!/usr/bin/env python3
"""Checks the archive of an OCI image, with nothing of what made it: every digest and size, media types, platforms, configuration,
and what is in the layers. Prints TAP lines.

    check.py IMAGE.tar ARCHITECTURE...
"""

import gzip
import hashlib
import io
import json
import sys
import tarfile

WANTED = {
    "User": "10001:10001",
    "ExposedPorts": {"1530/tcp": {}, "8443/tcp": {}},
    "Volumes": {"/srv/vigo": {}},
    "Entrypoint": ["/usr/bin/vigosrv"],
    "Cmd": ["serve"],
}
# ELF: e_machine, and the bytes for word size and byte order.
MACHINES = {"amd64": (62, 2, 1), "arm64": (183, 2, 1), "arm": (40, 1, 1), "riscv64": (243, 2, 1), "s390x": (22, 2, 2)}
FAILED = []


def say(name, problems):
    """One TAP line."""
    for problem in problems:
        print(f"# {problem}")
    print(f"{'not ok' if problems else 'ok'} image: {name}", flush=True)
    FAILED.extend(problems)


class Layout:
    """The blobs, each by its digest."""

    def __init__(self, path):
        with tarfile.open(path) as tar:
            self.files = {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}
        self.used = set()

    def blob(self, descriptor, media_type):
        """The content of a descriptor; raises where anything about it is wrong."""
        digest = descriptor["digest"]
        content = self.files["blobs/sha256/" + digest.removeprefix("sha256:")]
        assert descriptor["mediaType"] == media_type, f"{digest}: {descriptor['mediaType']}"
        assert descriptor["size"] == len(content), f"{digest}: size {descriptor['size']}, not {len(content)}"
        assert hashlib.sha256(content).hexdigest() == digest.removeprefix("sha256:"), f"{digest}: another content"
        self.used.add("blobs/sha256/" + digest.removeprefix("sha256:"))
        return content


def elf(content, architecture):
    """What is wrong with a program."""
    machine, bits, order = MACHINES[architecture]
    found = int.from_bytes(content[18:20], "little" if content[5] == 1 else "big")
    problems = []
    if content[:4] != b"\x7fELF" or (found, content[4], content[5]) != (machine, bits, order):
        problems.append(f"it is not for {architecture}")
    wide, endian = bits == 2, "little" if order == 1 else "big"
    start = int.from_bytes(content[32:40] if wide else content[28:32], endian)
    size, count = (54, 56) if wide else (42, 44)
    size, count = (int.from_bytes(content[at : at + 2], endian) for at in (size, count))
    kinds = [int.from_bytes(content[start + n * size : start + n * size + 4], endian) for n in range(count)]
    if 3 in kinds:
        problems.append("it asks for an interpreter")
    return problems


def check_layer(plain, architecture):
    """What is wrong with the files of an image."""
    problems, entries = [], {}
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        for entry in tar:
            entries[entry.name] = entry
            if entry.isfile() and entry.name.startswith("usr/bin/"):
                problems += [f"{entry.name}: {one}" for one in elf(tar.extractfile(entry).read(), architecture)]
        owned = {name: (one.uid, oct(one.mode)) for name, one in entries.items() if one.uid != 0}
    if owned != {"srv/vigo": (10001, "0o750")}:
        problems.append(f"owners: {owned}")
    for name in ("usr/bin/vigosrv", "usr/bin/vigocli"):
        if name not in entries or entries[name].mode != 0o755:
            problems.append(f"{name} is not there, or may not be executed")
    if {one.mtime for one in entries.values()} != {entries["etc"].mtime}:
        problems.append("times differ")
    if any(one.mode & 0o6000 or one.issym() or one.isdev() for one in entries.values()):
        problems.append("links, devices or set-user-id programs")
    return problems


def check_platform(layout, entry):
    """What is wrong with the image of one architecture."""
    architecture = entry["platform"]["architecture"]
    manifest = json.loads(layout.blob(entry, "application/vnd.oci.image.manifest.v1+json"))
    config = json.loads(layout.blob(manifest["config"], "application/vnd.oci.image.config.v1+json"))
    problems = []
    if (config["architecture"], config["os"]) != (architecture, "linux"):
        problems.append(f"the configuration is for {config['architecture']}")
    for key, value in WANTED.items():
        if config["config"].get(key) != value:
            problems.append(f"{key}: {config['config'].get(key)}, not {value}")
    (packed,) = manifest["layers"]
    plain = gzip.decompress(layout.blob(packed, "application/vnd.oci.image.layer.v1.tar+gzip"))
    if config["rootfs"]["diff_ids"] != ["sha256:" + hashlib.sha256(plain).hexdigest()]:
        problems.append("diff_ids name another content")
    return problems + check_layer(plain, architecture)


def guarded(check, *arguments):
    """The problems, a failed assertion among them."""
    try:
        return check(*arguments)
    except (AssertionError, KeyError, ValueError, OSError) as error:
        return [f"{type(error).__name__}: {error}"]


def main(path, architectures):
    """Checks it all."""
    layout = Layout(path)
    index_type = "application/vnd.oci.image.index.v1+json"
    version = json.loads(layout.files["oci-layout"])
    say("layout", [] if version == {"imageLayoutVersion": "1.0.0"} else [f"oci-layout: {version}"])
    (top,) = json.loads(layout.files["index.json"])["manifests"]
    entries = json.loads(layout.blob(top, index_type))["manifests"]
    found = [entry["platform"]["architecture"] for entry in entries]
    say("architectures", [] if found == architectures else [f"{found}, not {architectures}"])
    for entry in entries:
        say(entry["platform"]["architecture"], guarded(check_platform, layout, entry))
    unused = {name for name in layout.files if name.startswith("blobs/")} - layout.used
    say("nothing that no manifest names", sorted(unused))
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
