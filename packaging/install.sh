#!/bin/sh
# Installs what this folder holds of Vigo on a host without a package manager, or takes it away again. Needs a POSIX shell and the
# commands of BusyBox.
#
#   ./install.sh [--root DIR]              into /usr/local, below DIR where it is given (an image that is being made)
#   ./install.sh [--root DIR] --uninstall  keeps configuration, keys and state, and says where they are
#
# Repeated with a newer version it is an upgrade: configuration stays, the server is restarted if it runs, the agent starts anew
# after the run that may be under way.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root='' uninstall=''

fail() {
    echo "install.sh: $1" >&2
    exit "$2"
}

while [ $# -gt 0 ]; do
    case $1 in
        --root)
            [ $# -gt 1 ] || fail "--root needs a directory" 64
            root=${2%/}
            shift 2
            ;;
        --root=*)
            root=${1#--root=}
            root=${root%/}
            shift
            ;;
        --uninstall) uninstall=1; shift ;;
        -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
        *) fail "unknown option $1; there are: --root DIR, --uninstall" 64 ;;
    esac
done
[ -z "$root" ] || [ -d "$root" ] || fail "$root is not a directory" 64
[ -w "$root/" ] || fail "$root/ cannot be written: run it as root" 77

if [ -e "$here/bin/vigosrv" ]; then
    service=vigosrv programs='vigosrv vigocli'
else
    service=vigo-envoy programs=vigo-envoy
fi

# The init of the host, or of the image.
if [ -d "$root/run/systemd/system" ]; then
    init=systemd
elif [ -d "$root/run/openrc" ] || [ -e "$root/sbin/openrc-run" ] || [ -e "$root/usr/sbin/openrc-run" ]; then
    init=openrc
elif [ -e "$root/lib/systemd/systemd" ] || [ -e "$root/usr/lib/systemd/systemd" ]; then
    init=systemd
else
    init=busybox
fi

# control VERB: of the service on the host that runs; nothing is said where that is of no use.
control() {
    [ -z "$root" ] || return 0
    case $init in
        systemd) [ ! -d /run/systemd/system ] || systemctl "$1" "$service.service" ;;
        openrc) rc-service "$service" "$1" ;;
        busybox) "/etc/init.d/$service" "$1" ;;
    esac
}

runs() {
    [ -z "$root" ] || return 1
    case $init in
        systemd) systemctl --quiet is-active "$service.service" 2>/dev/null ;;
        *) [ -x "/etc/init.d/$service" ] && "/etc/init.d/$service" status >/dev/null 2>&1 ;;
    esac
}

# put MODE FILE TARGET: whole or not at all, and while the old one runs.
put() {
    mkdir -p "$root${3%/*}"
    cp "$2" "$root$3.new"
    chmod "$1" "$root$3.new"
    mv -f "$root$3.new" "$root$3"
}

# put_init MODE FILE TARGET: the packages' own script or unit, for /usr/local/bin.
put_init() {
    mkdir -p "$root${3%/*}"
    sed "s|/usr/bin/vigo|/usr/local/bin/vigo|g" "$2" >"$root$3.new"
    chmod "$1" "$root$3.new"
    mv -f "$root$3.new" "$root$3"
}

# Highest free number below 1000 that neither a user nor a group has.
free_id() {
    id=999
    while cut -d : -f 3 "$root/etc/passwd" "$root/etc/group" | grep -qx "$id"; do
        id=$((id - 1))
    done
    echo "$id"
}

# The user of the server. In an image the two files are written, as no tool of this host may be of use there.
make_user() {
    mkdir -p "$root/etc"
    touch "$root/etc/passwd" "$root/etc/group"
    if grep -q '^vigosrv:' "$root/etc/passwd"; then
        return 0
    fi
    if [ -z "$root" ] && command -v useradd >/dev/null 2>&1; then
        useradd --system --user-group --home-dir /srv/vigo --no-create-home --shell /sbin/nologin vigosrv
    elif [ -z "$root" ] && command -v adduser >/dev/null 2>&1; then
        adduser -S -D -H -h /srv/vigo -s /sbin/nologin vigosrv 2>/dev/null || true
        addgroup -S vigosrv 2>/dev/null || true
    fi
    new_id=$(free_id)
    grep -q '^vigosrv:' "$root/etc/group" || echo "vigosrv:x:$new_id:" >>"$root/etc/group"
    gid=$(sed -n 's/^vigosrv:[^:]*:\([0-9]*\):.*/\1/p' "$root/etc/group")
    if ! grep -q '^vigosrv:' "$root/etc/passwd"; then
        echo "vigosrv:x:$new_id:$gid:Vigo server:/srv/vigo:/sbin/nologin" >>"$root/etc/passwd"
        [ ! -e "$root/etc/shadow" ] || echo 'vigosrv:!:::::::' >>"$root/etc/shadow"
    fi
}

# Numbers, as names are this host's and not those of the image.
owner_of_server() { sed -n 's/^vigosrv:[^:]*:\([0-9]*\):\([0-9]*\):.*/\1:\2/p' "$root/etc/passwd"; }

install_files() {
    for program in $programs; do
        put 755 "$here/bin/$program" "/usr/local/bin/$program"
    done
    (cd "$here/share" && find . -type f) | while read -r file; do
        put 644 "$here/share/$file" "/usr/local/share/${file#./}"
    done
    case $init in
        systemd) put_init 644 "$here/init/systemd/$service.service" "/etc/systemd/system/$service.service" ;;
        openrc) put_init 755 "$here/init/openrc/$service" "/etc/init.d/$service" ;;
        busybox)
            put 644 "$here/init/busybox/init.sh" /usr/local/lib/vigo/init.sh
            put 755 "$here/init/busybox/$service" "/etc/init.d/$service"
            # Where rcS starts the scripts that begin with S, it finds this one.
            for script in "$root"/etc/init.d/S[0-9][0-9]*; do
                [ ! -e "$script" ] || ln -sf "$service" "$root/etc/init.d/S90$service"
                break
            done
            ;;
    esac
}

install_state() {
    if [ $service = vigosrv ]; then
        make_user
        if [ ! -e "$root/srv/vigo" ]; then
            mkdir -p "$root/srv"
            mkdir -m 0750 "$root/srv/vigo"
        fi
        # Only while it is root's: in a directory of the server's user a link may lie in place of a file.
        if [ "$(stat -c %u "$root/srv/vigo")" = 0 ] && [ ! -e "$root/srv/vigo/server.yaml" ] && [ ! -e "$root/srv/vigo/tls" ]; then
            put 640 "$here/server.yaml" /srv/vigo/server.yaml
            chown "$(owner_of_server)" "$root/srv/vigo/server.yaml"
            chmod 0750 "$root/srv/vigo"
            chown "$(owner_of_server)" "$root/srv/vigo"
        fi
    else
        mkdir -p "$root/etc/vigo/traits.d" "$root/var/lib"
        [ -e "$root/var/lib/vigo" ] || mkdir -m 0700 "$root/var/lib/vigo"
        [ -e "$root/etc/vigo/envoy.yaml" ] || put 644 "$here/envoy.yaml" /etc/vigo/envoy.yaml
    fi
}

take_away() {
    if runs; then
        control stop || true
    fi
    if [ -z "$root" ]; then
        case $init in
            systemd) systemctl disable "$service.service" 2>/dev/null || true ;;
            openrc) rc-update -q delete "$service" 2>/dev/null || true ;;
        esac
    fi
    for program in $programs; do
        rm -f "$root/usr/local/bin/$program"
    done
    (cd "$here/share" && find . -type f) | while read -r file; do
        rm -f "$root/usr/local/share/${file#./}"
    done
    rm -rf "$root/usr/local/share/doc/$service" "$root/usr/local/share/licenses/$service"
    rm -f "$root/etc/systemd/system/$service.service" "$root/etc/init.d/$service" "$root/etc/init.d/S90$service"
    # The library of the scripts is for both.
    if [ ! -e "$root/etc/init.d/vigosrv" ] && [ ! -e "$root/etc/init.d/vigo-envoy" ]; then
        rm -rf "$root/usr/local/lib/vigo"
    fi
    [ -n "$root" ] || [ $init != systemd ] || systemctl daemon-reload 2>/dev/null || true
    if [ $service = vigosrv ]; then
        echo "vigosrv was removed; its root, with keys, secrets and database, is kept: $root/srv/vigo"
    else
        echo "vigo-envoy was removed; kept are $root/etc/vigo and $root/var/lib/vigo (the identity of this host)"
    fi
}

if [ -n "$uninstall" ]; then
    take_away
    exit 0
fi

install_files
install_state
if [ -z "$root" ] && [ $init = systemd ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
if runs; then
    if [ $service = vigosrv ]; then control restart; else control reload; fi
    echo "$service was upgraded"
    exit 0
fi
case $init in
    systemd) start="systemctl enable --now $service" ;;
    openrc) start="rc-update add $service && rc-service $service start" ;;
    busybox) start="/etc/init.d/$service start" ;;
esac
if [ $service = vigosrv ]; then
    echo "vigosrv was installed. Look at /srv/vigo/server.yaml, or restore an archive into /srv/vigo; then: $start"
else
    echo "vigo-envoy was installed. On the server, 'vigocli envoys invite' prints the line that enrolls this host; then: $start"
fi
