# Sourced by the tests that run inside another root: TAP, waiting, and what an operator does.
# shellcheck shell=sh
# shellcheck disable=SC2034 # failed is read by the tests

failed=0

# check NAME COMMAND...
check() {
    name=$1
    shift
    if "$@" >/said 2>&1; then
        echo "ok $name"
    else
        sed 's/^/# /' /said
        sed 's/^/# /' /var/log/vigosrv.log /var/log/vigo-envoy.log 2>/dev/null | tail -20
        echo "not ok $name"
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

enroll() {
    invitation=$(vigocli envoys invite --json) || return 1
    token=$(echo "$invitation" | sed 's/.*"token":"\([^"]*\)".*/\1/')
    trust=$(echo "$invitation" | sed 's/.*"trust_hash":"\([^"]*\)".*/\1/')
    vigo-envoy enroll --server 127.0.0.1:1530 --token "$token" --trust-hash "$trust"
}

# children_of PROCESS
children_of() { sed -n "/^Pid:/h; /^PPid:[[:space:]]*$1\$/{x;s/^Pid:[[:space:]]*//p}" /proc/[0-9]*/status; }
