#!/bin/sh
# Runs in a root that has BusyBox and the two unpacked tarballs; prints TAP.
# shellcheck disable=SC2317,SC2329,SC2009 # functions are called by name; there is no pgrep

# shellcheck source=packaging/tests/guest.sh
. /guest.sh

# Process of a service: the child of the keeper.
process_of() { children_of "$(cat "/var/run/$1.pid")"; }

# Neither a program nor its keeper is left.
none_runs() { ! ps | grep -e '[l]ocal/bin/vigo' -e '[i]nit.d/vigo'; }

# --- the steps

installs() {
    sh /vigosrv/install.sh && sh /vigo-envoy/install.sh || return 1
    [ "$(stat -c '%a %U:%G' /srv/vigo)" = '750 vigosrv:vigosrv' ] && [ "$(stat -c %a /var/lib/vigo)" = 700 ]
}

server_starts() {
    /etc/init.d/vigosrv start || return 1
    wait_for 30 answers || return 1
    /etc/init.d/vigosrv status || return 1
    # As its own user.
    grep "^Uid:[[:space:]]*$(id -u vigosrv)[[:space:]]" "/proc/$(process_of vigosrv)/status" || return 1
    [ "$(stat -c %U /srv/vigo/tls/policy_key)" = vigosrv ]
}

not_enrolled() {
    /etc/init.d/vigo-envoy start || return 1
    # A status that a restart does not cure: the keeper gives up.
    wait_for 10 grep -q 'not started again' /var/log/vigo-envoy.log || return 1
    ! /etc/init.d/vigo-envoy status
}

converges() {
    publish one && enroll || return 1
    /etc/init.d/vigo-envoy start || return 1
    wait_for 30 grep -q one /etc/made-by-vigo
}

comes_back() {
    before=$(process_of vigosrv)
    kill -KILL "$before" || return 1
    wait_for 20 answers || return 1
    [ "$(process_of vigosrv)" != "$before" ]
}

upgrades() {
    echo '#mine' >>/etc/vigo/envoy.yaml
    server=$(process_of vigosrv) agent=$(process_of vigo-envoy)
    sh /vigosrv/install.sh && sh /vigo-envoy/install.sh || return 1
    wait_for 30 answers || return 1
    [ "$(process_of vigosrv)" != "$server" ] || { echo "the server was not restarted"; return 1; }
    [ "$(process_of vigo-envoy)" = "$agent" ] || { echo "the agent was restarted"; return 1; }
    grep -q '#mine' /etc/vigo/envoy.yaml || return 1
    publish two || return 1
    wait_for 30 grep -q two /etc/made-by-vigo
}

stops() {
    /etc/init.d/vigo-envoy restart && wait_for 10 vigo-envoy status || return 1
    /etc/init.d/vigo-envoy stop && /etc/init.d/vigosrv stop || return 1
    none_runs
}

removes() {
    /etc/init.d/vigosrv start || return 1
    sh /vigosrv/install.sh --uninstall && sh /vigo-envoy/install.sh --uninstall || return 1
    none_runs || return 1
    [ -z "$(find /usr /etc/init.d -name '*vigo*')" ] || { find /usr /etc/init.d -name '*vigo*'; return 1; }
    [ -e /srv/vigo/tls/policy_key ] && [ -e /var/lib/vigo/identity/pins ] && [ -e /etc/vigo/envoy.yaml ]
}

refuses() {
    sh /vigosrv/install.sh --frobnicate
    [ $? -eq 64 ] || return 1
    sh /vigosrv/install.sh --root /nowhere
    [ $? -eq 64 ]
}

export PATH=/usr/local/bin:/bin
ip link set lo up
check "tarball: install.sh installs both" installs
check "tarball: the server starts by its init script" server_starts
check "tarball: an agent that is not enrolled is not started again and again" not_enrolled
check "tarball: the agent is enrolled and converges" converges
check "tarball: a server that was killed comes back" comes_back
check "tarball: a newer version restarts the server and asks the agent" upgrades
check "tarball: restart and stop" stops
check "tarball: install.sh --uninstall keeps configuration and state" removes
check "tarball: wrong options are refused" refuses
exit "$failed"
