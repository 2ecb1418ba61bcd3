# A Debian machine with systemd and a network of its own: a root made by debootstrap once, booted by systemd-nspawn.
# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034

MACHINE_PACKAGES=systemd,systemd-sysv,dbus,iproute2,procps

# The root to copy: that of the end-to-end tests if they have made one, which has the same packages.
debian_root() {
    local made new=$CACHE/debian-12-packages.new.$$
    for made in "$CACHE"/debian-12-*/root; do
        if [ -e "$made/etc/debian_version" ]; then
            echo "$made"
            return 0
        fi
    done
    mkdir -p "$new"
    debootstrap --variant=minbase --include="$MACHINE_PACKAGES" bookworm "$new/root" >"$LOGS/debootstrap.log" 2>&1 || {
        tail -5 "$LOGS/debootstrap.log" >&2
        rm -rf "$new"
        return 1
    }
    rm -rf "$new/root/etc/machine-id" "$new/root/var/cache/apt/archives"/*.deb "$new/root/var/lib/apt/lists"/*
    touch "$new/root/etc/machine-id"
    mv "$new" "$CACHE/debian-12-packages" && echo "$CACHE/debian-12-packages/root"
}

# debian_copy DIR: a root to change at will. An overlay where the kernel can, as a copy is 240 MB.
COPIES=()
debian_copy() {
    local made
    made=$(debian_root) || return 1
    mkdir -p "$1" "$1.upper" "$1.work"
    if mount -t overlay overlay -o "lowerdir=$made,upperdir=$1.upper,workdir=$1.work" "$1" 2>/dev/null; then
        COPIES+=("$1")
    else
        rmdir "$1" && cp -a "$made" "$1"
    fi
}

forget_copies() {
    local dir
    for dir in "${COPIES[@]}"; do
        umount "$dir"
    done
    COPIES=()
}

# boot_machine ROOT
boot_machine() {
    MACHINE_ROOT=$1
    systemd-nspawn -q -b --register=no --keep-unit --link-journal=no --console=pipe --private-network -D "$1" \
        </dev/null >"$1.log" 2>&1 &
    MACHINE=$!
    wait_until 60 machine_is_up
}

machine_is_up() {
    local state
    state=$(in_machine systemctl is-system-running 2>/dev/null)
    [ "$state" = running ] || [ "$state" = degraded ]
}

# in_machine COMMAND...
in_machine() {
    local init
    init=$(cat "/proc/$MACHINE/task/$MACHINE/children" 2>/dev/null) || return 1
    nsenter -t "${init%% *}" -m -u -i -n -p -- env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        DEBIAN_FRONTEND=noninteractive "$@" </dev/null
}

# A clean shutdown leaves nothing mounted.
halt_machine() {
    [ -n "${MACHINE:-}" ] || return 0
    kill -TERM "$MACHINE" 2>/dev/null
    wait_until 30 machine_is_down || kill -KILL "$MACHINE"
    wait "$MACHINE" 2>/dev/null
    MACHINE=''
}

machine_is_down() { ! kill -0 "$MACHINE" 2>/dev/null; }
