"""An archive of `vigocli backup create`, read without any code of this product: docs/ARCHIVE.md must say enough."""

import gzip
import hashlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile

BIN, WORK = (pathlib.Path(argument) for argument in sys.argv[1:3])
PASSWORD = b"correct horse battery staple"


def read_page():
    """The function that the page prints, as it stands there."""
    page = pathlib.Path(__file__).resolve().parents[2] / "docs/ARCHIVE.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    assert len(blocks) == 1, len(blocks)
    scope = {}
    exec(blocks[0], scope)
    return scope["decrypt"]


def make_root():
    root = WORK / "root"
    for path, text in {
        "server.yaml": "server: {grpc_listen: '127.0.0.1:0', api_listen: '127.0.0.1:0'}\n",
        "stacks/configcrates/a.vgo": "name: a\n",
        # Over one chunk, and nothing that gzip makes small.
        "stacks/files/noise": "".join(hashlib.sha256(str(n).encode()).hexdigest() for n in range(4_000)),
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def create(root, name, *more):
    target = WORK / name
    environment = dict(os.environ, VIGO_BACKUP_PASSWORD=PASSWORD.decode())
    command = [str(BIN / "vigocli"), "--root", str(root), "backup", "create", str(target), *more]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return target.read_bytes()


def check_members(packed):
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed))) as archive:
        members = archive.getmembers()
        assert members[0].name == "manifest.json", members[0].name
        manifest = json.load(archive.extractfile(members[0]))
        assert [member.name for member in members[1:]] == [entry["path"] for entry in manifest["members"]]
        for member, entry in zip(members[1:], manifest["members"]):
            content = archive.extractfile(member).read()
            assert (len(content), member.mode) == (entry["size"], entry["mode"]), entry["path"]
            assert hashlib.sha256(content).hexdigest() == entry["sha256"], entry["path"]
    assert "stacks/files/noise" in {entry["path"] for entry in manifest["members"]}


def main():
    root, decrypt = make_root(), read_page()

    def plain():
        check_members(create(root, "plain.tar.gz"))

    def encrypted():
        data = create(root, "sealed.tar.gz.enc", "--encrypt")
        assert data[:8] == b"VIGOENC1" and len(data) > 56 + 65_536 + 16
        check_members(decrypt(data, PASSWORD))

    def altered():
        data = create(root, "altered.tar.gz.enc", "--encrypt")
        for bad in (data[:-1], data[: 56 + 65_536 + 16], data + b"x", data[:50] + bytes([data[50] ^ 1]) + data[51:]):
            try:
                decrypt(bad, PASSWORD)
            except Exception:  # whatever the libraries call it
                continue
            raise AssertionError("an altered file opened")

    failed = False
    for name, check in (
        ("a plain archive is read by Python's tarfile", plain),
        ("an encrypted archive is decrypted as the page says", encrypted),
        ("an altered one does not open there either", altered),
    ):
        try:
            check()
            print(f"ok {name}")
        except Exception as error:
            failed = True
            print(f"not ok {name}: {error!r}")
    sys.exit(failed)


main()
