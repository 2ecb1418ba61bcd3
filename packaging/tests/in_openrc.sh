#!/bin/sh
# Runs in a root with OpenRC and the unpacked apk packages; prints TAP.
# shellcheck disable=SC2317,SC2329 # functions are called by name

# shellcheck source=packaging/tests/guest.sh
. /guest.sh

# process_of SERVICE: the program, not its supervisor.
process_of() { pgrep -x -n "$1"; }

installs() {
    sh /vigosrv.post-install 0.0.9-r1 && sh /vigo-envoy.post-install 0.0.9-r1 || return 1
    [ "$(stat -c '%a %U' /srv/vigo)" = '750 vigosrv' ] && ! process_of vigosrv
}

server_starts() {
    rc-service vigosrv start && wait_for 30 answers || return 1
    rc-service vigosrv status && [ "$(ps -o user= -p "$(process_of vigosrv)")" = vigosrv ]
}

comes_back() {
    before=$(process_of vigosrv)
    kill -KILL "$before"
    wait_for 30 answers && [ "$(process_of vigosrv)" != "$before" ]
}

converges() {
    publish one && enroll && rc-service vigo-envoy start && wait_for 60 grep -q one /etc/made-by-vigo
}

upgrades() {
    server=$(process_of vigosrv) agent=$(process_of vigo-envoy)
    sh /vigosrv.post-install 0.1.0-r1 0.0.9-r1 && sh /vigo-envoy.post-install 0.1.0-r1 0.0.9-r1 || return 1
    wait_for 30 answers && [ "$(process_of vigosrv)" != "$server" ] && [ "$(process_of vigo-envoy)" = "$agent" ] || return 1
    publish two && wait_for 60 grep -q two /etc/made-by-vigo
}

refuses() {
    echo 'frobnicate: 1' >>/srv/vigo/server.yaml
    ! rc-service vigosrv restart
}

stops() {
    rc-service vigo-envoy stop || return 1
    rc-service vigosrv stop
    ! pgrep -x 'vigosrv|vigo-envoy|supervise-daemon'
}

mkdir -p /run/openrc
touch /run/openrc/softlevel
# Makes the folders of OpenRC, as a boot does.
rc-status --all >/dev/null 2>&1
ip link set lo up
echo '127.0.0.1 localhost openrc' >/etc/hosts
check "openrc: the packages start nothing" installs
check "openrc: the server starts as its own user" server_starts
check "openrc: a server that was killed comes back" comes_back
check "openrc: the agent is enrolled and converges" converges
check "openrc: an upgrade restarts the server and asks the agent" upgrades
check "openrc: stop ends the programs and their supervisors" stops
check "openrc: a wrong configuration is refused before the start" refuses
exit "$failed"
