# The scripts of OpenRC, as the apk packages install them, run by OpenRC itself: that of Debian, in a namespace.
# shellcheck shell=bash
# shellcheck disable=SC2154

test_openrc() {
    if [ "$(id -u)" -ne 0 ]; then
        echo "# not tested: another root needs root"
        return 0
    fi
    local package failed=0
    R=$T/openrc
    debian_copy "$R" || return 1
    if ! add_openrc >"$LOGS/openrc.log" 2>&1; then
        tail -3 "$LOGS/openrc.log"
        echo "not ok openrc: it can be installed"
        return 1
    fi
    for package in vigosrv vigo-envoy; do
        tar -xzf "$T/new/${package}_$VERSION-r1_x86_64.apk" -C "$R" --exclude=.PKGINFO 2>/dev/null || return 1
        mv "$R/.post-install" "$R/$package.post-install"
    done
    cp packaging/tests/in_openrc.sh packaging/tests/guest.sh "$R/"
    # shellcheck disable=SC2016
    unshare --mount --pid --net --uts --fork --kill-child sh -c \
        'hostname openrc && mount -t proc proc "$0/proc" && mount -t tmpfs run "$0/run" && exec chroot "$0" /bin/sh /in_openrc.sh' "$R" \
        >"$T/openrc.log" 2>&1 || failed=1
    cat "$T/openrc.log"
    return $failed
}

# Its packages are kept in the cache.
add_openrc() {
    local kept=$CACHE/debian-12-openrc
    if [ ! -e "$kept/ready" ]; then
        mkdir -p "$R/kept/partial" "$kept"
        cp /etc/resolv.conf "$R/etc/resolv.conf"
        chroot "$R" sh -c 'apt-get update -qq && apt-get install -qq -y --no-install-recommends --download-only -o Dir::Cache::archives=/kept openrc' || return 1
        cp "$R"/kept/*.deb "$kept/" && touch "$kept/ready" || return 1
    fi
    mkdir -p "$R/openrc"
    cp "$kept"/*.deb "$R/openrc/" && chroot "$R" sh -c 'dpkg -i /openrc/*.deb'
}
