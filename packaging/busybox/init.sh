# Sourced by the scripts of /etc/init.d: start, stop, restart, reload, status by BusyBox's start-stop-daemon. The script sets name,
# binary, arguments, user, log, pidfile and open_files.
# shellcheck shell=sh disable=SC2154,SC3045 # set by the script; ulimit as BusyBox has it

# Seconds that a stop may take before the process is killed.
stop_s=20

# The keeper: runs the program again and again. TERM and HUP are handed on to it.
keep() {
    ulimit -c 0
    ulimit -n "$open_files" 2>/dev/null
    umask 077
    cd / || exit 1
    child='' stopping=''
    trap 'stopping=1; [ -z "$child" ] || kill -TERM "$child"' TERM
    trap '[ -z "$child" ] || kill -HUP "$child"' HUP
    while :; do
        # shellcheck disable=SC2086
        if [ "$user" = root ]; then
            (umask 022; exec "$binary" $arguments) &
        else
            # By a pid file that is never there: one of another root may run already.
            start-stop-daemon -S -c "$user" -p "$pidfile.none" -x "$binary" -- $arguments &
        fi
        child=$!
        # A signal ends the wait, not the program.
        while :; do
            wait "$child"
            status=$?
            kill -0 "$child" 2>/dev/null || break
        done
        child=''
        [ -z "$stopping" ] || exit 0
        case $status in
            64 | 77 | 78)
                echo "$name: ended with status $status, which a restart does not cure; not started again"
                exit "$status"
                ;;
        esac
        sleep 5 &
        child=$!
        wait "$child"
        child=''
        [ -z "$stopping" ] || exit 0
    done
}

# Its number may belong to another process by now, after a crash of the host.
running() {
    [ -s "$pidfile" ] && tr '\0' ' ' <"/proc/$(cat "$pidfile")/cmdline" 2>/dev/null | grep -q "$name keep "
}

start() {
    if running; then
        echo "$name runs already"
        return 0
    fi
    [ -x "$binary" ] || {
        echo "$name: $binary is not there" >&2
        return 5
    }
    mkdir -p "${pidfile%/*}" "${log%/*}"
    # The script itself is the keeper; -b puts it into the background.
    rm -f "$pidfile"
    start-stop-daemon -S -b -m -p "$pidfile" -x /bin/sh -- -c "exec >>'$log' 2>&1; exec '$0' keep" || return 1
    echo "$name started; it writes to $log"
}

stop() {
    if ! running; then
        rm -f "$pidfile"
        echo "$name does not run"
        return 0
    fi
    pid=$(cat "$pidfile")
    kill -TERM "$pid"
    waited=0
    while kill -0 "$pid" 2>/dev/null; do
        if [ "$waited" -ge "$stop_s" ]; then
            kill -KILL "$pid"
            break
        fi
        sleep 1
        waited=$((waited + 1))
    done
    rm -f "$pidfile"
    echo "$name stopped"
}

main() {
    case ${1:-} in
        start) start ;;
        stop) stop ;;
        restart) stop && start ;;
        reload)
            running || {
                echo "$name does not run" >&2
                return 7
            }
            kill -HUP "$(cat "$pidfile")"
            ;;
        status)
            if running; then
                echo "$name runs (process $(cat "$pidfile"))"
            else
                echo "$name does not run"
                return 3
            fi
            ;;
        keep) keep ;;
        *)
            echo "usage: $0 start|stop|restart|reload|status" >&2
            return 64
            ;;
    esac
}
