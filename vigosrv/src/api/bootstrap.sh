#!/bin/sh
# Installs the Vigo agent from this server and enrolls this host.
#   curl -sSfk https://@API@/bootstrap | sudo sh -s -- --token TOKEN --trust-hash HASH
set -eu

api='@API@'
server='@SERVER@'
token='' trust='' hostname='' prefix=/usr/local/bin root=''

fail() {
    echo "vigo bootstrap: $1" >&2
    exit "$2"
}

while [ $# -gt 0 ]; do
    case $1 in
        --token | --trust-hash | --hostname | --server | --prefix | --root) [ $# -gt 1 ] || fail "$1 needs a value" 64 ;;
    esac
    case $1 in
        --token) token=$2; shift 2 ;;
        --trust-hash) trust=$2; shift 2 ;;
        --hostname) hostname=$2; shift 2 ;;
        --server) server=$2; shift 2 ;;
        --prefix) prefix=$2; shift 2 ;;
        --root) root=$2; shift 2 ;;
        *) fail "unknown option $1: there are --token, --trust-hash, --hostname, --server, --prefix, --root" 64 ;;
    esac
done

[ "$(uname -s)" = Linux ] || fail "the agent runs on Linux, this is $(uname -s)" 1
case $(uname -m) in
    x86_64 | amd64) name=vigo-envoy-x86_64 ;;
    aarch64 | arm64) name=vigo-envoy-aarch64 ;;
    armv7* | armv8l) name=vigo-envoy-armv7 ;;
    riscv64) name=vigo-envoy-riscv64 ;;
    s390x) name=vigo-envoy-s390x ;;
    *) fail "there is no agent for $(uname -m)" 1 ;;
esac

get() {
    if command -v curl >/dev/null 2>&1; then
        curl -sSfk -o "$2" "https://$api/agents/$1"
    elif command -v wget >/dev/null 2>&1; then
        wget -q --no-check-certificate -O "$2" "https://$api/agents/$1"
    else
        fail "neither curl nor wget is here" 1
    fi
}

work=$(mktemp -d) || fail "no temporary directory" 1
trap 'rm -rf "$work"' EXIT
get "$name" "$work/vigo-envoy" || fail "the server has no $name: run 'vigocli agents add FILE' there" 1
get "$name.sha256" "$work/sum" || fail "the server has no checksum for $name" 1
want=$(cut -d ' ' -f 1 <"$work/sum")
have=$(sha256sum "$work/vigo-envoy" | cut -d ' ' -f 1)
[ "$want" = "$have" ] || fail "the download is damaged: SHA-256 $have, expected $want" 1

mkdir -p "$root$prefix"
chmod 755 "$work/vigo-envoy"
mv "$work/vigo-envoy" "$root$prefix/vigo-envoy.new"
mv "$root$prefix/vigo-envoy.new" "$root$prefix/vigo-envoy"

# The transport of this script was not verified: the trust hash, or the trusted entry's owner, decides whom we believe.
set -- enroll --server "$server"
[ -z "$token" ] || set -- "$@" --token "$token"
[ -z "$hostname" ] || set -- "$@" --hostname "$hostname"
if [ -n "$trust" ]; then
    set -- "$@" --trust-hash "$trust"
else
    set -- "$@" --trust-on-first-use
fi
# Enrolled with a server that is lost: key and queue are kept, and brought to this one.
if [ -e "$root/var/lib/vigo/identity/pins" ]; then
    set -- "$@" --again
    if [ -z "$root" ] && [ -d /run/systemd/system ]; then
        systemctl stop vigo-envoy.service 2>/dev/null || true
    fi
fi
[ -z "$root" ] || set -- "$@" --identity-dir "$root/var/lib/vigo/identity" --state-dir "$root/var/lib/vigo/state"
"$root$prefix/vigo-envoy" "$@" || {
    code=$?
    echo "vigo bootstrap: not enrolled; on the server, 'vigocli envoys invite' prints a line that enrolls this host" >&2
    exit "$code"
}

if [ -z "$root" ] && [ -d /run/systemd/system ]; then
    # That of a package, or one that somebody wrote, is kept.
    if [ ! -e /lib/systemd/system/vigo-envoy.service ] && [ ! -e /usr/lib/systemd/system/vigo-envoy.service ] &&
        [ ! -e /etc/systemd/system/vigo-envoy.service ]; then
        sed "s|/usr/bin/vigo-envoy|$prefix/vigo-envoy|" >/etc/systemd/system/vigo-envoy.service <<'UNIT'
@UNIT@
UNIT
    fi
    systemctl daemon-reload
    systemctl enable --now vigo-envoy.service
elif [ -z "$root" ]; then
    echo "vigo bootstrap: enrolled; start '$prefix/vigo-envoy daemon' from this host's init"
fi
