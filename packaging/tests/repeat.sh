# The same binaries make the same packages, wherever and whenever.
# shellcheck shell=bash
# shellcheck disable=SC2154

test_repeat() { check "repeat: packages made again, elsewhere, are the same to the byte" same_again; }

same_again() {
    cp -r packaging ci CHANGELOG.md Cargo.toml LICENSE-APACHE LICENSE-MIT "$T/" || return 1
    # Of another place, another time and other modes.
    (cd "$T" && find packaging -exec touch {} + && chmod -R go= packaging && AGENT_TARGETS="${TARGETS_BUILT[*]}" build_into "$T/again" "$VERSION" "$FORMATS" "$NATIVE") || return 1
    (cd "$T/again" && sha256sum -- *) >"$T/sums"
    # Two packages in four forms, and the agents in three. Those of other targets are made by the same steps.
    is "$(wc -l <"$T/sums")" 11 || return 1
    (cd "$T/new" && sha256sum --quiet -c "$T/sums")
}
