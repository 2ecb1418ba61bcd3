# Completions of vigosrv for fish, made by `vigocli completions`.
function __vigosrv_at
    set -l place ''
    set -l skip 0
    for word in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
            continue
        end
        switch "$place:$word"
            case ':--root' ':--server-root' ':--config' 'serve:--root' 'serve:--server-root' 'serve:--config' 'quickstart:--dir' 'quickstart:--envoy' 'quickstart:--root' 'quickstart:--server-root' 'quickstart:--config' 'check-config:--root' 'check-config:--server-root' 'check-config:--config'
                set skip 1
            case ':serve' ':quickstart' ':check-config'
                set place (string trim "$place $word")
        end
    end
    test "$place" = "$argv[1]"
end
complete -c vigosrv -n "__vigosrv_at ''" -f -a serve -d 'Serves until TERM'
complete -c vigosrv -n "__vigosrv_at ''" -f -a quickstart -d 'Shows the main job from nothing to a repaired host, in a directory of its own'
complete -c vigosrv -n "__vigosrv_at ''" -f -a check-config -d 'Validates server.yaml: exit status 0, or 78 with every error and its place'
complete -c vigosrv -n "__vigosrv_at ''" -l root -l server-root -r -d 'server root (default /srv/vigo)'
complete -c vigosrv -n "__vigosrv_at ''" -l config -r -d 'configuration (default server.yaml in the root)'
complete -c vigosrv -n "__vigosrv_at ''" -l json -d 'print one JSON document instead of text'
complete -c vigosrv -n "__vigosrv_at ''" -l verbose -d 'show what lies below an error'
complete -c vigosrv -n "__vigosrv_at ''" -l help -d 'tell of the command'
complete -c vigosrv -n "__vigosrv_at ''" -l version -d 'print the version'
complete -c vigosrv -n "__vigosrv_at 'serve'" -l take-over -d 'make the replica of `backup.url` this server\'s, whoever\'s it was'
complete -c vigosrv -n "__vigosrv_at 'serve'" -l root -l server-root -r -d 'server root (default /srv/vigo)'
complete -c vigosrv -n "__vigosrv_at 'serve'" -l config -r -d 'configuration (default server.yaml in the root)'
complete -c vigosrv -n "__vigosrv_at 'serve'" -l json -d 'print one JSON document instead of text'
complete -c vigosrv -n "__vigosrv_at 'serve'" -l verbose -d 'show what lies below an error'
complete -c vigosrv -n "__vigosrv_at 'serve'" -l help -d 'tell of the command'
complete -c vigosrv -n "__vigosrv_at 'serve'" -l version -d 'print the version'
complete -c vigosrv -n "__vigosrv_at 'quickstart'" -l dir -r -d 'where (default: a temporary directory, removed at the end)'
complete -c vigosrv -n "__vigosrv_at 'quickstart'" -l keep -d 'leave the server running'
complete -c vigosrv -n "__vigosrv_at 'quickstart'" -l envoy -r -d 'the agent (default: vigo-envoy beside this program, or in PATH)'
complete -c vigosrv -n "__vigosrv_at 'quickstart'" -l root -l server-root -r -d 'server root (default /srv/vigo)'
complete -c vigosrv -n "__vigosrv_at 'quickstart'" -l config -r -d 'configuration (default server.yaml in the root)'
complete -c vigosrv -n "__vigosrv_at 'quickstart'" -l json -d 'print one JSON document instead of text'
complete -c vigosrv -n "__vigosrv_at 'quickstart'" -l verbose -d 'show what lies below an error'
complete -c vigosrv -n "__vigosrv_at 'quickstart'" -l help -d 'tell of the command'
complete -c vigosrv -n "__vigosrv_at 'quickstart'" -l version -d 'print the version'
complete -c vigosrv -n "__vigosrv_at 'check-config'" -l root -l server-root -r -d 'server root (default /srv/vigo)'
complete -c vigosrv -n "__vigosrv_at 'check-config'" -l config -r -d 'configuration (default server.yaml in the root)'
complete -c vigosrv -n "__vigosrv_at 'check-config'" -l json -d 'print one JSON document instead of text'
complete -c vigosrv -n "__vigosrv_at 'check-config'" -l verbose -d 'show what lies below an error'
complete -c vigosrv -n "__vigosrv_at 'check-config'" -l help -d 'tell of the command'
complete -c vigosrv -n "__vigosrv_at 'check-config'" -l version -d 'print the version'
