# Sourced by `ci/package test`: the parts of the test, each printing TAP lines (`ok NAME`, `not ok NAME`), and what they share.
# shellcheck shell=bash
# shellcheck disable=SC2154 # variables of ci/package

PARTS=(names deb rpm apk openrc tarball repeat)
# The one architecture whose packages are also installed.
NATIVE=x86_64-unknown-linux-musl

for part in "${PARTS[@]}"; do
    # shellcheck source=/dev/null
    . "packaging/tests/$part.sh"
done
. packaging/tests/busybox_root.sh
. packaging/tests/machine.sh

# run_tests [PART...]
run_tests() {
    local part failed=0
    local parts=("$@")
    [ $# -gt 0 ] || parts=("${PARTS[@]}")
    [ -x "$DIST/$NATIVE/vigosrv" ] || fail "$DIST/$NATIVE has no binaries: run ci/cross x86_64 first"
    T=$(mktemp -d)
    trap 'halt_machine; forget_copies; rm -rf --one-file-system "$T"' EXIT
    mapfile -t TARGETS_BUILT < <(built_targets)
    build_into "$T/new" "$VERSION" "$FORMATS" "${TARGETS_BUILT[@]}" || fail "no packages could be made"
    echo "# packages of ${#TARGETS_BUILT[@]} targets after $SECONDS s"
    for part in "${parts[@]}"; do
        declare -F "test_$part" >/dev/null || fail "no part is called $part; there are: ${PARTS[*]}" 64
        local from=$SECONDS
        "test_$part" || failed=1
        echo "# $part took $((SECONDS - from)) s"
    done
    return $failed
}

# build_into DIR VERSION FORMATS TARGET...
build_into() {
    # shellcheck disable=SC2034 # read by build
    local PACKAGES=$1 FORMATS=$3
    local -x VERSION=$2
    build "${@:4}"
}

# Debian packages with what the tests run.
test_needs() {
    need_command python3 python3
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing_packages+=(python3-venv)
    need_command debootstrap debootstrap
    need_command unshare util-linux
    need_command systemd-nspawn systemd-container
    need_command nsenter util-linux
    need_command dpkg-deb dpkg
    need_command lintian lintian
    need_command rpm rpm
    need_command rpm2cpio rpm2cpio
    need_command cpio cpio
    need_command rpmlint rpmlint
    need_command busybox busybox-static
    need_command file file
}

# check NAME COMMAND...: like step, and what the command said is shown only where it failed.
check() {
    local said
    if said=$("${@:2}" 2>&1); then
        echo "ok $1"
    else
        # shellcheck disable=SC2001
        sed 's/^/# /' <<<"$said"
        echo "not ok $1"
        return 1
    fi
}

# wait_until SECONDS COMMAND...: looks every quarter of a second.
wait_until() {
    local until=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        if [ "$SECONDS" -ge "$until" ]; then
            echo "waited in vain for: $*"
            return 1
        fi
        sleep 0.25
    done
}

# is WHAT EXPECTED: two texts are the same.
is() {
    [ "$1" = "$2" ] || {
        echo "it is: $1"
        echo "expected: $2"
        return 1
    }
}
