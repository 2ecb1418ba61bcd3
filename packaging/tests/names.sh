# Names, architectures and contents of every package: what each format calls a target, and that the programs inside are for it.
# shellcheck shell=bash
# shellcheck disable=SC2154

test_names() {
    local target failed=0
    for target in "${TARGETS_BUILT[@]}"; do
        check "names: deb of $target" names_of_deb "$target" || failed=1
        check "names: rpm of $target" names_of_rpm "$target" || failed=1
        check "names: apk of $target" names_of_apk "$target" || failed=1
        check "names: tarball of $target" names_of_tarball "$target" || failed=1
    done
    check "names: all formats of a package hold the same" same_contents || failed=1
    check "names: every agent is in vigo-agents, with its sum" agents_are_whole || failed=1
    return $failed
}

# Words of `file` for the machine of a target.
machine_of() {
    case $1 in
        x86_64*) echo '64-bit LSB .*x86-64' ;;
        aarch64*) echo '64-bit LSB .*ARM aarch64' ;;
        armv7*) echo '32-bit LSB .*ARM, EABI5' ;;
        riscv64*) echo '64-bit LSB .*RISC-V' ;;
        s390x*) echo '64-bit MSB .*IBM S/390' ;;
    esac
}

packages_of() {
    echo vigo-envoy
    [ ! -e "$DIST/$1/vigosrv" ] || echo vigosrv
}

# programs_are_for TARGET DIR PACKAGE BIN: the programs are there, executable, and for the machine.
programs_are_for() {
    local program path
    for program in $(programs_of "$3"); do
        path=$2/$4/$program
        [ -x "$path" ] || { echo "$path is not there"; return 1; }
        file "$path" | grep -q "ELF $(machine_of "$1")" || { file "$path"; return 1; }
        cmp "$path" "$DIST/$1/$program" || return 1
    done
}

names_of_deb() {
    local arch package file dir
    arch=$(name_of "$1" 4)
    for package in $(packages_of "$1"); do
        file=$T/new/${package}_$VERSION-1_$arch.deb dir=$T/tree/$1-$package-deb
        is "$(dpkg-deb -f "$file" Architecture)" "$arch" || return 1
        mkdir -p "$dir" && dpkg-deb -x "$file" "$dir" && programs_are_for "$1" "$dir" "$package" usr/bin || return 1
    done
}

names_of_rpm() {
    local arch package file dir
    arch=$(name_of "$1" 5)
    for package in $(packages_of "$1"); do
        file=$T/new/$package-$VERSION-1.$arch.rpm dir=$T/tree/$1-$package-rpm
        is "$(rpm -qp --qf '%{ARCH} %{OS}' "$file")" "$arch linux" || return 1
        mkdir -p "$dir" && rpm2cpio "$file" | (cd "$dir" && cpio -idm --quiet) || return 1
        programs_are_for "$1" "$dir" "$package" usr/bin || return 1
    done
}

names_of_apk() {
    local arch package file dir
    arch=$(name_of "$1" 6)
    for package in $(packages_of "$1"); do
        file=$T/new/${package}_$VERSION-r1_$arch.apk dir=$T/tree/$1-$package-apk
        mkdir -p "$dir" && tar -xzf "$file" -C "$dir" 2>/dev/null || return 1
        is "$(sed -n 's/^arch = //p' "$dir/.PKGINFO")" "$arch" || return 1
        programs_are_for "$1" "$dir" "$package" usr/bin || return 1
    done
}

names_of_tarball() {
    local package name dir
    for package in $(packages_of "$1"); do
        name=$package-$VERSION-linux-$(name_of "$1" 3) dir=$T/tree/$1-$package-tar
        mkdir -p "$dir" && tar -xzf "$T/new/$name.tar.gz" -C "$dir" || return 1
        programs_are_for "$1" "$dir/$name" "$package" bin || return 1
    done
}

# files_of PACKAGE FORMAT: of the native target, by what they are for.
files_of() {
    (cd "$T/tree/$NATIVE-$1-$2" && find . -type f) | sed -e 's|^\./lib/systemd|./usr/lib/systemd|' -e '/^\.\/\./d' |
        grep -v -e /usr/share/doc/ -e /usr/share/licenses/ -e /usr/share/lintian/ -e /zsh/ -e '^\./etc/init.d/' -e /systemd/ | sort
}

same_contents() {
    local package
    for package in $(packages_of "$NATIVE"); do
        files_of "$package" deb >"$T/files"
        files_of "$package" rpm | diff "$T/files" - || return 1
        files_of "$package" apk | diff "$T/files" - || return 1
    done
    [ -e "$T/tree/$NATIVE-vigosrv-rpm/usr/lib/systemd/system/vigosrv.service" ] && [ -x "$T/tree/$NATIVE-vigosrv-apk/etc/init.d/vigosrv" ] || return 1
    diff -r "$T/tree/$NATIVE-vigosrv-deb/lib/systemd" "$T/tree/$NATIVE-vigosrv-rpm/usr/lib/systemd"
}

agents_are_whole() {
    local dir=$T/tree/agents target
    mkdir -p "$dir" && dpkg-deb -x "$T/new/vigo-agents_$VERSION-1_all.deb" "$dir" || return 1
    for target in "${TARGETS_BUILT[@]}"; do
        cmp "$dir/usr/lib/vigo/agents/vigo-envoy-$(name_of "$target" 3)" "$DIST/$target/vigo-envoy" || return 1
    done
    (cd "$dir/usr/lib/vigo/agents" && sha256sum -c --quiet ./*.sha256) || return 1
    is "$(rpm -qp --qf '%{ARCH}' "$T/new/vigo-agents-$VERSION-1.noarch.rpm")" noarch || return 1
    is "$(tar -xzOf "$T/new/vigo-agents_$VERSION-r1_noarch.apk" .PKGINFO 2>/dev/null | sed -n 's/^arch = //p')" noarch
}
