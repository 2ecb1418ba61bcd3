#!/usr/bin/env python3
"""Assembles the OCI image of the server without an engine: an image layout with an index over all architectures, in one tar.

    assemble.py DIST VERSION SECONDS COMMIT OUT.tar TARGET...

DIST/TARGET holds vigosrv and vigocli. The same binaries, version, time and commit give the same bytes: entries are sorted, owners and
modes are given here, and every time is SECONDS.
"""

import gzip
import hashlib
import io
import json
import pathlib
import sys
import tarfile
import time

# Rust's target: architecture and variant as image specification and Go name them.
PLATFORMS = {
    "x86_64-unknown-linux-musl": {"architecture": "amd64"},
    "aarch64-unknown-linux-musl": {"architecture": "arm64", "variant": "v8"},
    "armv7-unknown-linux-musleabihf": {"architecture": "arm", "variant": "v7"},
    "riscv64gc-unknown-linux-musl": {"architecture": "riscv64"},
    "s390x-unknown-linux-musl": {"architecture": "s390x"},
}
UID = 10001
ROOT = "/srv/vigo"
HERE = pathlib.Path(__file__).resolve().parent
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def add(tar, name, mode, seconds, content=None, owner=0):
    """One entry; a folder where there is no content."""
    entry = tarfile.TarInfo(name)
    entry.mode, entry.mtime, entry.uid, entry.gid = mode, seconds, owner, owner
    if content is None:
        entry.type = tarfile.DIRTYPE
        tar.addfile(entry)
    else:
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))


def layer(folder, licences, seconds):
    """The one layer of an architecture, as plain tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        add(tar, "etc", 0o755, seconds)
        add(tar, "etc/group", 0o644, seconds, (HERE / "group").read_bytes())
        add(tar, "etc/passwd", 0o644, seconds, (HERE / "passwd").read_bytes())
        add(tar, "srv", 0o755, seconds)
        # A new volume takes owner and mode from here.
        add(tar, ROOT.lstrip("/"), 0o750, seconds, owner=UID)
        add(tar, "tmp", 0o1777, seconds)
        add(tar, "usr", 0o755, seconds)
        add(tar, "usr/bin", 0o755, seconds)
        for name in ("vigocli", "vigosrv"):
            add(tar, f"usr/bin/{name}", 0o755, seconds, (folder / name).read_bytes())
        add(tar, "usr/share", 0o755, seconds)
        add(tar, "usr/share/licenses", 0o755, seconds)
        add(tar, "usr/share/licenses/vigo", 0o755, seconds)
        for path in licences:
            add(tar, f"usr/share/licenses/vigo/{path.name}", 0o644, seconds, path.read_bytes())
    return out.getvalue()


def configuration(platform, version, commit, created, diff_id):
    """What an engine is told about running it."""
    labels = {
        "org.opencontainers.image.description": "The Vigo server",
        "org.opencontainers.image.licenses": "Apache-2.0 OR MIT",
        "org.opencontainers.image.revision": commit,
        "org.opencontainers.image.title": "vigosrv",
        "org.opencontainers.image.version": version,
    }
    return {
        **platform,
        "os": "linux",
        "created": created,
        "config": {
            "User": f"{UID}:{UID}",
            "ExposedPorts": {"1530/tcp": {}, "8443/tcp": {}},
            "Env": ["PATH=/usr/bin"],
            "Entrypoint": ["/usr/bin/vigosrv"],
            "Cmd": ["serve"],
            "Volumes": {ROOT: {}},
            "WorkingDir": ROOT,
            "StopSignal": "SIGTERM",
            "Labels": labels,
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": created, "created_by": "packaging/image/assemble.py"}],
    }


def main(dist, version, seconds, commit, out, targets):
    """Writes the archive."""
    licences = [HERE.parents[1] / "LICENSE-APACHE", HERE.parents[1] / "LICENSE-MIT"]
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    blobs = {}

    def put(content, media_type):
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def document(value, media_type):
        return put(json.dumps(value, sort_keys=True, separators=(",", ":")).encode(), media_type)

    manifests = []
    for target in sorted(targets, key=list(PLATFORMS).index):
        platform = PLATFORMS[target]
        plain = layer(pathlib.Path(dist) / target, licences, seconds)
        diff_id = f"sha256:{hashlib.sha256(plain).hexdigest()}"
        config = document(configuration(platform, version, commit, created, diff_id), CONFIG)
        packed = put(gzip.compress(plain, 9, mtime=0), LAYER)
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [packed]}
        manifests.append({**document(manifest, MANIFEST), "platform": {**platform, "os": "linux"}})
    index = document({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}, INDEX)
    index["annotations"] = {"org.opencontainers.image.ref.name": version}
    top = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [index]}, sort_keys=True)
    with tarfile.open(out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        add(tar, "blobs", 0o755, seconds)
        add(tar, "blobs/sha256", 0o755, seconds)
        for digest in sorted(blobs):
            add(tar, f"blobs/sha256/{digest}", 0o644, seconds, blobs[digest])
        add(tar, "index.json", 0o644, seconds, top.encode())
        add(tar, "oci-layout", 0o644, seconds, b'{"imageLayoutVersion":"1.0.0"}')


if __name__ == "__main__":
    if len(sys.argv) < 7:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5], sys.argv[6:])
