#!/bin/sh
# Runs in a root that has BusyBox and the two unpacked tarballs; prints TAP.
# shellcheck disable=SC2317,SC2329,SC2009 # functions are called by name; there is no pgrep

failed=0

check() {
    name=$1
    shift
    if "$@" >/said 2>&1; then
        echo "ok tarball: $name"
    else
        sed 's/^/# /' /said
        sed 's/^/# /' /var/log/vigosrv.log /var/log/vigo-envoy.log 2>/dev/null | tail -20
        echo "not ok tarball: $name"
        failed=1
    fi
}

# wait_for SECONDS COMMAND...
wait_for() {
    left=$(($1 * 4))
    shift
    until "$@" >/dev/null 2>&1; do
        left=$((left - 1))
        if [ "$left" -le 0 ]; then
            echo "waited in vain for: $*"
            return 1
        fi
        sleep 0.25
    done
}

answers() { vigocli status --json | grep -q schema; }

publish() {
    mkdir -p /srv/vigo/stacks/configcrates /srv/vigo/stacks/envoys
    printf 'name: test\nresources:\n  - {name: made, type: file, target_path: /etc/made-by-vigo, content: "%s"}\n' "$1" \
        >/srv/vigo/stacks/configcrates/test.vgo
    printf 'envoys:\n  - {match: "*", configcrates: [test]}\n' >/srv/vigo/stacks/envoys/all.vgo
    vigocli config publish --message test
}

# Process of a service: the child of the keeper.
process_of() {
    keeper=$(cat "/var/run/$1.pid")
    sed -n "/^Pid:/h; /^PPid:[[:space:]]*$keeper\$/{x;s/^Pid:[[:space:]]*//p}" /proc/[0-9]*/status
}

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
    publish one || return 1
    invitation=$(vigocli envoys invite --json) || return 1
    token=$(echo "$invitation" | sed 's/.*"token":"\([^"]*\)".*/\1/')
    trust=$(echo "$invitation" | sed 's/.*"trust_hash":"\([^"]*\)".*/\1/')
    vigo-envoy enroll --server localhost:1530 --token "$token" --trust-hash "$trust" || return 1
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
check "install.sh installs both" installs
check "the server starts by its init script" server_starts
check "an agent that is not enrolled is not started again and again" not_enrolled
check "the agent is enrolled and converges" converges
check "a server that was killed comes back" comes_back
check "a newer version restarts the server and asks the agent" upgrades
check "restart and stop" stops
check "install.sh --uninstall keeps configuration and state" removes
check "wrong options are refused" refuses
exit $failed
