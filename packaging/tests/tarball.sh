# The tarballs, in a root that has BusyBox and nothing else: installed, started by its init script, upgraded, and removed.
# shellcheck shell=bash
# shellcheck disable=SC2154

test_tarball() {
    if [ "$(id -u)" -ne 0 ]; then
        echo "# not tested: another root needs root"
        return 0
    fi
    local package failed=0
    R=$T/busybox
    busybox_root "$R" || return 1
    for package in vigosrv vigo-envoy; do
        tar -xzf "$T/new/$package-$VERSION-linux-x86_64.tar.gz" -C "$R" || return 1
        mv "$R/$package-$VERSION-linux-x86_64" "$R/$package"
    done
    cp packaging/tests/in_busybox.sh "$R/test.sh"
    cp packaging/tests/guest.sh "$R/"
    # A process that is left over ends with the namespace.
    # shellcheck disable=SC2016
    unshare --mount --pid --net --uts --fork --kill-child sh -c \
        'hostname busybox && mount -t proc proc "$0/proc" && exec chroot "$0" /bin/sh /test.sh' "$R" >"$T/busybox.log" 2>&1 || failed=1
    cat "$T/busybox.log"
    check "tarball: an image of another init gets its scripts" tarball_image || failed=1
    return $failed
}

# Installed from outside into three images.
tarball_image() {
    local init
    for init in sbin/openrc-run lib/systemd/systemd sbin/init; do
        local image=$T/image-${init##*/}
        mkdir -p "$image/${init%/*}" "$image/etc" && touch "$image/$init" || return 1
        sh "$R/vigosrv/install.sh" --root "$image" && sh "$R/vigo-envoy/install.sh" --root="$image" || return 1
        grep -q '^vigosrv:' "$image/etc/passwd" || return 1
        is "$(stat -c '%a %u' "$image/srv/vigo")" "750 $(sed -n 's/^vigosrv:x:\([0-9]*\):.*/\1/p' "$image/etc/passwd")" || return 1
    done
    grep -q '^ExecStart=/usr/local/bin/vigosrv' "$T/image-systemd/etc/systemd/system/vigosrv.service" || return 1
    grep -q '/usr/local/bin/vigo-envoy' "$T/image-openrc-run/etc/init.d/vigo-envoy" || return 1
    [ -x "$T/image-init/etc/init.d/vigosrv" ] || return 1
    sh "$R/vigosrv/install.sh" --root "$T/image-systemd" --uninstall && sh "$R/vigo-envoy/install.sh" --root "$T/image-systemd" --uninstall || return 1
    is "$(cd "$T/image-systemd" && find . -name 'vigo*' | sort)" './etc/vigo
./srv/vigo
./var/lib/vigo'
}
