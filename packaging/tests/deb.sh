# deb: install, use, upgrade in the middle of a run, remove and purge on a Debian machine under its real systemd; lintian.
# shellcheck shell=bash
# shellcheck disable=SC2154

# `systemd-analyze security` of the server, at most; in tenths.
SERVER_EXPOSURE_MAX=20
# The same of the agent. It acts as root for its policy, and its unit says why each protection is missing.
AGENT_EXPOSURE_MAX=95

test_deb() {
    local failed=0
    check "deb: lintian finds no error" lint_debs || failed=1
    if [ "$(id -u)" -ne 0 ]; then
        echo "# not tested: a machine needs root"
        return $failed
    fi
    build_into "$T/old" 0.0.9 deb "$NATIVE" || return 1
    local root=$T/machine step
    debian_copy "$root" || return 1
    mkdir "$root/packages"
    cp "$T"/old/*.deb "$T"/new/*amd64.deb "$T"/new/*all.deb "$root/packages/"
    echo envoy.example >"$root/etc/hostname"
    boot_machine "$root" || { tail -20 "$root.log"; return 1; }
    # Each is the ground for the next one.
    for step in \
        "the old version is installed" deb_installs \
        "owners and modes are right" deb_modes \
        "nothing is started before it is configured" deb_idle \
        "the server runs under its unit" deb_serves \
        "an agent is enrolled and converges" deb_converges \
        "the agents of the package are served" deb_serves_agents \
        "the units are as tight as they should be" deb_exposure \
        "an upgrade in a run kills neither the run nor what it started" deb_upgrades \
        "the agent starts anew from its file after the run" deb_renews \
        "a run that upgrades the agent itself goes on to its end" deb_upgrades_itself \
        "configuration that was edited is kept" deb_keeps \
        "a server that dies is started again, one that cannot start is not" deb_restarts \
        "removal stops services and keeps state" deb_removes \
        "it comes back with its identity" deb_returns \
        "purge removes what can be made again and keeps the server's keys" deb_purges \
        "purge of an unused server leaves nothing" deb_purges_unused; do
        case $step in
            deb_*) check "deb: $name" "$step" || {
                failed=1
                in_machine journalctl -b --no-pager -n 40 -u vigosrv -u vigo-envoy | sed 's/^/# /'
                break
            } ;;
            *) name=$step ;;
        esac
    done
    [ ! -s "$T/exposure" ] || sed 's/^/# /' "$T/exposure"
    halt_machine
    return $failed
}

lint_debs() {
    # One of each architecture: lintian knows them from the file.
    lintian --allow-root --fail-on error --tag-display-limit 0 "$T"/new/*.deb
}

apt_install() { in_machine sh -c "dpkg -i /packages/vigosrv_$1-1_amd64.deb /packages/vigo-envoy_$1-1_amd64.deb /packages/vigo-agents_$1-1_all.deb"; }

deb_installs() { apt_install 0.0.9 && in_machine sh -c 'dpkg -l vigosrv vigo-envoy vigo-agents | grep -c ^ii' | grep -qx 3; }

deb_modes() {
    is "$(in_machine stat -c '%a %U:%G %n' /srv/vigo /srv/vigo/server.yaml /srv/vigo/agents /var/lib/vigo /etc/vigo /etc/vigo/envoy.yaml /usr/bin/vigosrv)" \
"750 vigosrv:vigosrv /srv/vigo
640 vigosrv:vigosrv /srv/vigo/server.yaml
755 vigosrv:vigosrv /srv/vigo/agents
700 root:root /var/lib/vigo
755 root:root /etc/vigo
644 root:root /etc/vigo/envoy.yaml
755 root:root /usr/bin/vigosrv"
}

deb_idle() {
    is "$(in_machine systemctl is-active vigosrv vigo-envoy)" 'inactive
inactive'
}

deb_serves() {
    in_machine systemctl enable --now vigosrv || return 1
    is "$(in_machine systemctl is-active vigosrv)" active || return 1
    in_machine vigocli status --json | grep -q schema || return 1
    # Made by the server, as its user.
    is "$(in_machine stat -c '%a %U' /srv/vigo/tls/policy_key)" '600 vigosrv'
}

# publish CRATE-TEXT: as an operator does it, as root.
publish() {
    local stacks=$MACHINE_ROOT/srv/vigo/stacks
    mkdir -p "$stacks/configcrates" "$stacks/envoys"
    printf '%s\n' "$1" >"$stacks/configcrates/test.vgo"
    printf 'envoys:\n  - {match: "*", configcrates: [test]}\n' >"$stacks/envoys/all.vgo"
    in_machine vigocli config publish --message test
}

deb_converges() {
    publish 'name: test
resources:
  - {name: made, type: file, target_path: /etc/made-by-vigo, content: "one\n"}' || return 1
    local invitation words
    invitation=$(in_machine vigocli envoys invite --json) || return 1
    mapfile -t words < <(grep -o '"token":"[^"]*"\|"trust_hash":"[^"]*"' <<<"$invitation" | cut -d'"' -f4)
    in_machine vigo-envoy enroll --server 127.0.0.1:1530 --token "${words[0]}" --trust-hash "${words[1]}" || return 1
    in_machine systemctl enable --now vigo-envoy || return 1
    wait_until 60 in_machine test -e /etc/made-by-vigo || return 1
    wait_until 60 converged
}

converged() { in_machine vigocli nodes --json | grep -q '"converged"'; }

deb_serves_agents() {
    in_machine vigocli agents list | grep -qx vigo-envoy-x86_64 || return 1
    is "$(in_machine readlink /srv/vigo/agents/vigo-envoy-x86_64)" /usr/lib/vigo/agents/vigo-envoy-x86_64 || return 1
    # As the server reads it.
    in_machine setpriv --reuid vigosrv --regid vigosrv --clear-groups sh -c 'cd /srv/vigo/agents && sha256sum -c vigo-envoy-x86_64.sha256'
}

# exposure UNIT: in tenths.
exposure() {
    in_machine systemd-analyze security --no-pager "$1" | sed -n 's/.*Overall exposure level for [^:]*: \([0-9]*\)\.\([0-9]\).*/\1\2/p'
}

deb_exposure() {
    local server agent
    server=$(exposure vigosrv.service) agent=$(exposure vigo-envoy.service)
    echo "exposure of vigosrv: ${server%?}.${server: -1}; of vigo-envoy: ${agent%?}.${agent: -1}" | tee "$T/exposure"
    in_machine systemd-analyze security --no-pager vigosrv.service | grep '✗' >>"$T/exposure"
    [ "$server" -le "$SERVER_EXPOSURE_MAX" ] && [ "$agent" -le "$AGENT_EXPOSURE_MAX" ]
}

main_pid() { in_machine systemctl show -P MainPID "$1"; }

deb_upgrades() {
    printf '#mine\n' >>"$MACHINE_ROOT/etc/vigo/envoy.yaml"
    printf '#mine\n' >>"$MACHINE_ROOT/srv/vigo/server.yaml"
    local server agent
    server=$(main_pid vigosrv) agent=$(main_pid vigo-envoy)
    publish 'name: test
resources:
  - {name: slow, type: exec, command: "touch /tmp/began; while [ ! -e /tmp/upgraded ]; do sleep 0.1; done; touch /tmp/ended", creates: /tmp/ended}' || return 1
    wait_until 30 in_machine test -e /tmp/began || return 1
    apt_install "$VERSION" || return 1
    is "$(main_pid vigo-envoy)" "$agent" || return 1
    [ "$(main_pid vigosrv)" != "$server" ] || { echo "the server was not restarted"; return 1; }
    is "$(in_machine systemctl is-active vigosrv vigo-envoy)" 'active
active' || return 1
    in_machine test ! -e /tmp/ended || { echo "the run was over before the upgrade was"; return 1; }
    in_machine touch /tmp/upgraded
    wait_until 30 in_machine test -e /tmp/ended || return 1
    # The server hears of a run that changed something and failed nothing.
    wait_until 60 run_arrived
}

run_arrived() { in_machine vigocli runs --json | grep -o '"status":"[a-z]*"\|"changed":[0-9]*' | head -2 | grep -q '"changed":1'; }

# The agent is the same process, of the new file.
deb_renews() { wait_until 30 renewed; }

renewed() {
    local pid
    pid=$(main_pid vigo-envoy)
    [ "$(in_machine readlink "/proc/$pid/exe")" = /usr/bin/vigo-envoy ]
}

# The package manager is a child of the agent, and its scripts ask the agent to start anew.
deb_upgrades_itself() {
    local agent
    agent=$(main_pid vigo-envoy)
    publish "name: test
resources:
  - {name: upgrade, type: exec, command: 'dpkg -i /packages/vigo-envoy_$VERSION-1_amd64.deb && touch /tmp/installed', creates: /tmp/installed}
  - {name: after, type: exec, command: 'touch /tmp/after', creates: /tmp/after, depends_on: [upgrade]}" || return 1
    wait_until 60 in_machine test -e /tmp/after || return 1
    wait_until 60 in_machine sh -c 'vigocli runs --json | grep -q "\"changed\":2"' || return 1
    wait_until 30 renewed || return 1
    is "$(main_pid vigo-envoy)" "$agent" || return 1
    # shellcheck disable=SC2016
    is "$(in_machine dpkg-query -f '${db:Status-Abbrev}' -W vigo-envoy)" 'ii ' || return 1
    wait_until 30 converged
}

deb_restarts() {
    local pid
    pid=$(main_pid vigosrv)
    in_machine kill -KILL "$pid"
    wait_until 20 in_machine sh -c 'systemctl --quiet is-active vigosrv && vigocli status --json | grep -q schema' || return 1
    [ "$(main_pid vigosrv)" != "$pid" ] || return 1
    cp -p "$MACHINE_ROOT/srv/vigo/server.yaml" "$T/server.yaml"
    echo 'frobnicate: 1' >>"$MACHINE_ROOT/srv/vigo/server.yaml"
    in_machine systemctl restart vigosrv && { echo "it started"; return 1; }
    is "$(in_machine systemctl show -P ExecMainStatus -P ActiveState vigosrv)" '78
failed' || return 1
    cat "$T/server.yaml" >"$MACHINE_ROOT/srv/vigo/server.yaml"
    in_machine systemctl start vigosrv
}

deb_keeps() {
    is "$(in_machine tail -qn 1 /etc/vigo/envoy.yaml /srv/vigo/server.yaml)" '#mine
#mine' || return 1
    wait_until 30 converged
}

deb_removes() {
    in_machine dpkg -r vigo-agents vigosrv vigo-envoy || return 1
    is "$(in_machine systemctl is-active vigosrv vigo-envoy)" 'inactive
inactive' || return 1
    is "$(in_machine sh -c 'ls /usr/bin/vigo* /lib/systemd/system/vigo* /usr/lib/vigo /srv/vigo/agents 2>/dev/null')" '/srv/vigo/agents:' || return 1
    in_machine test -e /srv/vigo/tls/policy_key -a -e /var/lib/vigo/identity/pins -a -e /etc/vigo/envoy.yaml
}

deb_returns() {
    apt_install "$VERSION" || return 1
    in_machine systemctl enable --now vigosrv vigo-envoy || return 1
    publish 'name: test
resources:
  - {name: made, type: file, target_path: /etc/made-by-vigo, content: "two\n"}' || return 1
    wait_until 60 in_machine grep -q two /etc/made-by-vigo
}

deb_purges() {
    in_machine dpkg -P vigo-agents vigosrv vigo-envoy || return 1
    in_machine sh -c 'test ! -e /var/lib/vigo && test ! -e /etc/vigo && test ! -e /srv/vigo/run && test -e /srv/vigo/tls/policy_key && id vigosrv'
}

deb_purges_unused() {
    in_machine rm -rf /srv/vigo || return 1
    in_machine sh -c "dpkg -i /packages/vigosrv_$VERSION-1_amd64.deb && dpkg -P vigosrv" || return 1
    in_machine sh -c '! test -e /srv/vigo && ! id vigosrv'
}
