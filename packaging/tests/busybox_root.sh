# A root that has BusyBox and nothing else, for what runs scripts of packages without a machine.
# shellcheck shell=bash

# busybox_root DIR
busybox_root() {
    mkdir -p "$1"/bin "$1"/sbin "$1"/usr/bin "$1"/usr/sbin "$1"/etc/init.d "$1"/dev "$1"/proc "$1"/run "$1"/tmp "$1"/var/log "$1"/srv
    ln -s ../run "$1/var/run"
    cp "$(command -v busybox)" "$1/bin/busybox"
    chroot "$1" /bin/busybox --install -s /bin || return 1
    mknod -m 666 "$1/dev/null" c 1 3 && mknod -m 666 "$1/dev/zero" c 1 5 && mknod -m 666 "$1/dev/urandom" c 1 9 || return 1
    echo 'root:x:0:0:root:/root:/bin/sh' >"$1/etc/passwd"
    echo 'root:x:0:' >"$1/etc/group"
    echo 'root:!:::::::' >"$1/etc/shadow"
    echo '127.0.0.1 localhost busybox' >"$1/etc/hosts"
}

# fake_tool ROOT PATH: a program that writes down how it was called, and says that every service runs.
fake_tool() {
    printf '#!/bin/sh\necho "%s $*" >>/calls\n' "${2##*/}" >"$1/$2"
    chmod 755 "$1/$2"
}
