# apk: fields and checksums as the format wants them; the scripts, run as apk runs them, in a root that has BusyBox.
# shellcheck shell=bash
# shellcheck disable=SC2154

test_apk() {
    local package failed=0
    for package in "$T"/new/*.apk; do
        check "apk: ${package##*/} is well-formed" apk_form "$package" || failed=1
    done
    if [ "$(id -u)" -ne 0 ]; then
        echo "# not tested: another root needs root"
        return $failed
    fi
    R=$T/apk-root
    { busybox_root "$R" && account_tools "$R" && fake_tool "$R" bin/rc-service && fake_tool "$R" bin/rc-update; } || return 1
    check "apk: the scripts make the user and the folders, and start nothing" apk_installs || failed=1
    check "apk: an upgrade restarts the server and only asks the agent" apk_upgrades || failed=1
    check "apk: removal stops the services and keeps state" apk_removes || failed=1
    check "apk: the scripts of OpenRC are whole" openrc_scripts || failed=1
    return $failed
}

# Two gzip members, control then data; the first names the SHA-256 of the second. Names and versions as apk allows them.
apk_form() {
    python3 - "$1" <<'PYTHON'
import hashlib, io, re, sys, tarfile, zlib
raw = open(sys.argv[1], "rb").read()
members, rest = [], raw
while rest:
    unpacker = zlib.decompressobj(31)
    body = unpacker.decompress(rest)
    assert unpacker.eof, "a member is cut short"
    members.append((rest[: len(rest) - len(unpacker.unused_data)], body))
    rest = unpacker.unused_data
assert len(members) == 2, f"{len(members)} members"
# The control part has no end of archive, so that the two read as one.
control = tarfile.open(fileobj=io.BytesIO(members[0][1] + bytes(1024)))
names = control.getnames()
assert names[0] == ".PKGINFO", names
hooks = {".pre-install", ".post-install", ".pre-deinstall", ".post-deinstall", ".pre-upgrade", ".post-upgrade"}
assert set(names[1:]) <= hooks, names
assert all(control.getmember(name).mode & 0o111 for name in names[1:]), "a script cannot be run"
fields = {}
for line in control.extractfile(".PKGINFO").read().decode().splitlines():
    assert re.fullmatch(r"[a-z_]+ = .*", line), f"no field: {line!r}"
    key, value = line.split(" = ", 1)
    fields.setdefault(key, value)
for key in ("pkgname", "pkgver", "pkgdesc", "arch", "size", "datahash", "license", "maintainer"):
    assert fields.get(key), f"no {key}"
assert re.fullmatch(r"[a-z0-9][a-z0-9+._-]*", fields["pkgname"])
assert re.fullmatch(r"[0-9]+(\.[0-9]+)*(_(alpha|beta|pre|rc)[0-9]*)?-r[0-9]+", fields["pkgver"]), fields["pkgver"]
assert fields["datahash"] == hashlib.sha256(members[1][0]).hexdigest(), "datahash is of something else"
for entry in tarfile.open(fileobj=io.BytesIO(members[1][1])):
    assert not entry.name.startswith("/") and ".." not in entry.name, entry.name
    assert (entry.uid, entry.gid) == (0, 0), entry.name
    if entry.isfile():
        want = hashlib.sha1(tarfile.open(fileobj=io.BytesIO(members[1][1])).extractfile(entry.name).read()).hexdigest()
        assert entry.pax_headers.get("APK-TOOLS.checksum.SHA1") == want, f"checksum of {entry.name}"
PYTHON
}

# Those of Alpine's BusyBox, as far as the scripts use them; Debian's is built without.
account_tools() {
    cat >"$1/bin/addgroup" <<'TOOL'
#!/bin/sh
[ "$1" = -S ] && echo "$2:x:101:" >>/etc/group
TOOL
    cat >"$1/bin/adduser" <<'TOOL'
#!/bin/sh
[ "$*" = "-S -D -H -h /srv/vigo -s /sbin/nologin -g Vigo server -G vigosrv vigosrv" ] || exit 1
echo 'vigosrv:x:100:101:Vigo server:/srv/vigo:/sbin/nologin' >>/etc/passwd
TOOL
    chmod 755 "$1/bin/addgroup" "$1/bin/adduser"
}

# apk_script PACKAGE SCRIPT ARGUMENT...: as apk runs it, in the root.
apk_script() {
    local dir=$R/lib/apk
    mkdir -p "$dir"
    tar -xzf "$T/new/$1"*.apk -C "$dir" "$2" 2>/dev/null || return 1
    chroot "$R" "/lib/apk/$2" "${@:3}"
}

apk_unpack() {
    tar -xzf "$1" -C "$R" --exclude='.[Pp]*' 2>/dev/null
}

apk_installs() {
    local package
    for package in "vigosrv_$VERSION-r1_x86_64" "vigo-envoy_$VERSION-r1_x86_64" "vigo-agents_$VERSION-r1_noarch"; do
        apk_unpack "$T/new/$package.apk" || return 1
        apk_script "$package" .post-install "$VERSION-r1" || return 1
    done
    is "$(chroot "$R" stat -c '%a %U:%G %n' /srv/vigo /srv/vigo/server.yaml /srv/vigo/agents /var/lib/vigo /etc/vigo/envoy.yaml)" \
"750 vigosrv:vigosrv /srv/vigo
640 vigosrv:vigosrv /srv/vigo/server.yaml
755 vigosrv:vigosrv /srv/vigo/agents
700 root:root /var/lib/vigo
644 root:root /etc/vigo/envoy.yaml" || return 1
    [ -L "$R/srv/vigo/agents/vigo-envoy-x86_64" ] || return 1
    ! grep ' start' "$R/calls"
}

apk_upgrades() {
    : >"$R/calls"
    apk_script "vigosrv_$VERSION-r1_x86_64" .post-upgrade "$VERSION-r1" 0.0.9-r1 || return 1
    apk_script "vigo-envoy_$VERSION-r1_x86_64" .post-upgrade "$VERSION-r1" 0.0.9-r1 || return 1
    is "$(cat "$R/calls")" 'rc-service --ifexists --ifstarted vigosrv restart
rc-service --ifexists --ifstarted vigo-envoy reload'
}

apk_removes() {
    : >"$R/calls"
    local package
    for package in vigosrv vigo-envoy; do
        apk_script "${package}_$VERSION-r1_x86_64" .pre-deinstall "$VERSION-r1" || return 1
        apk_script "${package}_$VERSION-r1_x86_64" .post-deinstall "$VERSION-r1" || return 1
    done
    apk_script "vigo-agents_$VERSION-r1_noarch" .pre-deinstall "$VERSION-r1" || return 1
    is "$(cat "$R/calls")" 'rc-service --ifexists --ifstarted vigosrv stop
rc-update -q delete vigosrv
rc-service --ifexists --ifstarted vigo-envoy stop
rc-update -q delete vigo-envoy' || return 1
    [ -e "$R/srv/vigo/server.yaml" ] && [ ! -e "$R/srv/vigo/agents/vigo-envoy-x86_64" ]
}

# Sourced with functions of OpenRC's that do nothing: the scripts are shell, and name programs that are in the package.
openrc_scripts() {
    local script
    for script in vigosrv vigo-envoy; do
        # shellcheck disable=SC2016
        chroot "$R" /bin/sh -euc 'need() { :; }; use() { :; }; after() { :; }; checkpath() { :; }; ebegin() { :; }; eend() { :; }
            RC_SVCNAME=x; . "$0"; depend; start_pre; [ -x "$command" ]' "/etc/init.d/$script" || return 1
    done
}
