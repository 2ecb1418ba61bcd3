# The same binaries make the same packages, wherever and whenever.
# shellcheck shell=bash
# shellcheck disable=SC2154

test_repeat() { check "repeat: packages made again, elsewhere, are the same to the byte" same_again; }

same_again() {
    cp -r packaging ci CHANGELOG.md Cargo.toml LICENSE-APACHE LICENSE-MIT "$T/" || return 1
    # Of another place, another time and other modes.
    (cd "$T" && find packaging -exec touch {} + && chmod -R go= packaging && build_into "$T/again" "$VERSION" "$FORMATS" "${TARGETS_BUILT[@]}") || return 1
    (cd "$T/new" && sha256sum -- *) >"$T/sums"
    (cd "$T/again" && sha256sum --quiet -c "$T/sums")
}
