# Sourced by the programs of ci/: the cache outside the checkout, and how what is missing gets there.
# shellcheck shell=bash

CACHE=${VIGO_CACHE:-$HOME/.cache/vigo}
LOGS=$CACHE/logs
mkdir -p "$LOGS" "$CACHE/tools"
# The tools folder comes last: what the machine already has is preferred.
export PATH=$PATH:$CACHE/tools/bin

# need_command COMMAND PACKAGE...: the Debian packages to install where the command is missing.
missing_packages=()
need_command() {
    command -v "$1" >/dev/null 2>&1 || missing_packages+=("${@:2}")
}

install_packages() {
    [ ${#missing_packages[@]} -eq 0 ] && return 0
    local sudo=()
    if [ "$(id -u)" -ne 0 ]; then
        sudo=(sudo -n)
    fi
    if command -v apt-get >/dev/null && "${sudo[@]}" true 2>/dev/null; then
        echo "installing: ${missing_packages[*]}"
        "${sudo[@]}" apt-get update -qq >"$LOGS/apt.log" 2>&1
        "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            "${missing_packages[@]}" >>"$LOGS/apt.log" 2>&1 && return 0
        tail -5 "$LOGS/apt.log"
    fi
    echo "missing: install the Debian packages ${missing_packages[*]} (or what holds their commands), then run again"
    return 1
}

# cargo_tool NAME VERSION: into the cache, only where the machine does not have it.
cargo_tool() {
    command -v "$1" >/dev/null 2>&1 && return 0
    echo "building $1 $2 (once; kept in $CACHE/tools)"
    CARGO_TARGET_DIR=$CACHE/tools/build cargo install --quiet --locked --root "$CACHE/tools" --version "$2" "$1" || return 1
    rm -rf "$CACHE/tools/build"
}

CARGO_NEXTEST_VERSION=0.9.143

# What arch-tests run: programs and whole machines of other architectures, and disks for these.
need_emulators() {
    need_command qemu-s390x-static qemu-user-static
    need_command qemu-system-aarch64 qemu-system-arm
    need_command mkfs.ext4 e2fsprogs
    need_command debugfs e2fsprogs
    need_command cpio cpio
    need_command depmod kmod
    need_command git git
}

# python_env FILE: the environment of a requirements.txt, made once; its programs come last in PATH.
python_env() {
    local venv
    venv=$CACHE/python-$(sha256sum "$1" | cut -c1-12)
    if [ ! -e "$venv/ready" ]; then
        rm -rf "$venv"
        python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$1" || return 1
        touch "$venv/ready"
    fi
    export PATH=$PATH:$venv/bin
}

# step NAME COMMAND...: a test that is a program.
step() {
    if "${@:2}"; then echo "ok $1"; else echo "not ok $1" && return 1; fi
}
