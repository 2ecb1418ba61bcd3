# rpm: rpmlint; install, upgrade and erase in a scratch root whose systemctl writes down what it is asked.
# shellcheck shell=bash
# shellcheck disable=SC2154

test_rpm() {
    local failed=0 step name
    check "rpm: rpmlint finds no error" lint_rpms || failed=1
    if [ "$(id -u)" -ne 0 ]; then
        echo "# not tested: another root needs root"
        return $failed
    fi
    build_into "$T/old" 0.0.9 rpm "$NATIVE" || return 1
    R=$T/rpm-root
    { debian_copy "$R" && mkdir -p "$R/run/systemd/system" && fake_tool "$R" bin/systemctl && rpm --root "$R" --initdb; } || return 1
    for step in \
        "the old version is installed" rpm_installs \
        "an upgrade restarts the server, only asks the agent, and keeps configuration" rpm_upgrades \
        "erasing stops services and keeps state" rpm_erases; do
        case $step in
            rpm_*) check "rpm: $name" "$step" || failed=1 ;;
            *) name=$step ;;
        esac
    done
    return $failed
}

lint_rpms() {
    local said
    said=$(rpmlint --config packaging/rpmlint.toml "$T"/new/*.rpm 2>&1)
    echo "$said"
    grep -q ' 0 errors' <<<"$said"
}

# What they depend on is in no database of this root.
scratch_rpm() { rpm --root "$R" --nodeps --nosignature "$@"; }

rpm_installs() {
    scratch_rpm -i "$T"/old/vigo*-0.0.9-1.x86_64.rpm "$T"/old/vigo-agents-0.0.9-1.noarch.rpm || return 1
    is "$(chroot "$R" stat -c '%a %U:%G %n' /srv/vigo /srv/vigo/server.yaml /srv/vigo/agents /var/lib/vigo /etc/vigo/envoy.yaml)" \
"750 vigosrv:vigosrv /srv/vigo
640 vigosrv:vigosrv /srv/vigo/server.yaml
755 vigosrv:vigosrv /srv/vigo/agents
700 root:root /var/lib/vigo
644 root:root /etc/vigo/envoy.yaml" || return 1
    # The agents are linked whichever package came first.
    [ -L "$R/srv/vigo/agents/vigo-envoy-x86_64" ] || return 1
    ! grep -e enable -e ' start ' "$R/calls"
}

rpm_upgrades() {
    printf '#mine\n' >>"$R/etc/vigo/envoy.yaml"
    printf '#mine\n' >>"$R/srv/vigo/server.yaml"
    : >"$R/calls"
    scratch_rpm -U "$T/new/vigosrv-$VERSION-1.x86_64.rpm" "$T/new/vigo-envoy-$VERSION-1.x86_64.rpm" "$T/new/vigo-agents-$VERSION-1.noarch.rpm" || return 1
    is "$(tail -qn 1 "$R/etc/vigo/envoy.yaml" "$R/srv/vigo/server.yaml")" '#mine
#mine' || return 1
    grep -q 'try-restart vigosrv.service' "$R/calls" && grep -q 'reload vigo-envoy.service' "$R/calls" || return 1
    [ -L "$R/srv/vigo/agents/vigo-envoy-x86_64" ] || return 1
    ! grep -e stop -e disable -e 'restart vigo-envoy' "$R/calls"
}

rpm_erases() {
    : >"$R/calls"
    touch "$R/var/lib/vigo/kept" "$R/srv/vigo/kept"
    scratch_rpm -e vigo-agents vigosrv vigo-envoy || return 1
    grep -q 'disable --now vigosrv.service' "$R/calls" && grep -q 'disable --now vigo-envoy.service' "$R/calls" || return 1
    [ ! -e "$R/usr/bin/vigosrv" ] && [ ! -e "$R/usr/bin/vigo-envoy" ] && [ ! -e "$R/usr/lib/vigo" ] || return 1
    is "$(cd "$R" && ls etc/vigo srv/vigo var/lib/vigo)" 'etc/vigo:
envoy.yaml.rpmsave

srv/vigo:
agents
kept
server.yaml

var/lib/vigo:
kept'
}
