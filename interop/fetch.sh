#!/usr/bin/env bash
# fetch.sh [--update] PEER...: unpacks other daemons, each with its own libraries, into a folder of its own:
# PEERS/SUITE-DAEMON, where SUITE is a Debian release and DAEMON strongswan, libreswan, wireguard, openvpn, nebula or tinc.
# Nothing is installed.
# The mirror is the one that this machine uses already; the versions are those that it has today.
set -euo pipefail

peers=${WARREN_PEERS:-$(dirname "$(dirname "$(realpath "${BASH_SOURCE[0]}")")")/target/peers}

STRONGSWAN=(charon-systemd strongswan-swanctl libstrongswan-standard-plugins libstrongswan-extra-plugins
    libcharon-extra-plugins)
LIBRESWAN=(libreswan libnss3-tools)
# In a folder they have nothing to do: maintainer scripts do not run there, and nobody logs in.
UNNEEDED=(python3 systemd init-system-helpers debconf debconf-2.0 dpkg perl perl-base adduser libpam-modules lsb-base sysvinit-utils
    iproute2 bsdmainutils bsdextrautils kmod iptables host strongswan-starter tzdata
    dns-root-data openssl-provider-legacy)

say() { printf 'fetch: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

# own_sources: "URI SUITE" of each Debian repository that apt knows, with SUITE a code name.
own_sources() {
    apt-get indextargets --format '$(CREATED_BY) $(ORIGIN) $(COMPONENT) $(REPO_URI) $(CODENAME)' |
        sed -n 's/^Packages Debian main //p' | sort -u
}

patiently() { "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/patiently.sh" 90 "$@"; }

# sources_for SUITE: apt's own Debian sources, with this release in the place of that which is installed.
sources_for() {
    local own uri suite release
    own=$(own_sources)
    if [ -z "$own" ] && [ "$(id -u)" = 0 ]; then
        patiently apt-get update -qq
        own=$(own_sources)
    fi
    [ -n "$own" ] || die "apt has no lists of a Debian mirror: a Debian system with a mirror in its sources is needed, and apt-get update"
    # shellcheck disable=SC1091
    release=$(. /etc/os-release && echo "$VERSION_CODENAME")
    while read -r uri suite; do
        case $suite in
            "$release" | "$release-security" | "$release-updates") ;;
            *) continue ;;
        esac
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri ${suite/$release/$1} main"
    done <<<"$own"
}

# What apt takes for installed: only the packages that are not to be fetched.
pretend_installed() {
    local package
    for package in "${UNNEEDED[@]}"; do
        printf 'Package: %s\nStatus: install ok installed\nArchitecture: %s\nMulti-Arch: foreign\nVersion: 9999:1\n\n' \
            "$package" "$(dpkg --print-architecture)"
    done
}

# unpack DEB ROOT: as an installation would, also through /lib where it is a link into /usr.
unpack() { dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink -f - -C "$2"; }

fetch() {
    local peer=$1 suite=${1%-*} daemon=${1##*-} work wanted apt deb link main
    case $daemon in
        strongswan) wanted=("${STRONGSWAN[@]}") main=charon-systemd ;;
        libreswan) wanted=("${LIBRESWAN[@]}") main=libreswan ;;
        wireguard) wanted=(wireguard-go wireguard-tools) main=wireguard-go ;;
        openvpn) wanted=(openvpn openssl) main=openvpn ;;
        nebula | tinc) wanted=("$daemon") main=$daemon ;;
        *) die "no such daemon: $peer" ;;
    esac
    work=$(mktemp -d "$peers/fetch.XXXXXX")
    # shellcheck disable=SC2064 # now
    trap "rm -rf '$work'" EXIT
    mkdir -p "$work"/apt/{lists,cache/archives,etc/preferences.d} "$work/root"/usr/{bin,sbin,lib,lib64}
    sources_for "$suite" >"$work/apt/etc/sources.list"
    pretend_installed >"$work/apt/status"
    apt=(-q -o "Dir::State::lists=$work/apt/lists" -o "Dir::State::status=$work/apt/status" -o "Dir::Cache=$work/apt/cache"
        -o "Dir::Etc::sourcelist=$work/apt/etc/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::Etc::preferencesparts=$work/apt/etc/preferences.d"
        -o Dir::Etc::preferences=- -o Acquire::Languages=none -o APT::Install-Recommends=false -o Debug::NoLocking=true
        -o APT::Sandbox::User=root -o Dir::State::extended_states="$work/apt/extended" -o Acquire::http::Timeout=20 -o Acquire::https::Timeout=20)
    say "fetching $peer"
    # A release may have no security archive yet; what counts is whether the packages are found.
    patiently apt-get "${apt[@]}" update >"$work/log" 2>&1 || true
    patiently apt-get "${apt[@]}" -y --download-only install "${wanted[@]}" >>"$work/log" 2>&1 || {
        cat "$work/log" >&2
        die "$peer could not be fetched: is ${suite^} on this machine's mirror, and its key in debian-archive-keyring?"
    }
    for link in bin sbin lib lib64; do ln -s "usr/$link" "$work/root/$link"; done
    for deb in "$work"/apt/cache/archives/*.deb; do unpack "$deb" "$work/root"; done
    rm -rf "$work/root"/usr/share/{doc,man,locale,info,lintian,bash-completion}
    dpkg-deb -f "$work"/apt/cache/archives/"$main"_*.deb Version >"$work/root/VERSION"
    mkdir -p "$work/root"/{proc,sys,dev,run,tmp,root,etc,var/lib,var/log}
    rm -rf "${peers:?}/$peer"
    mv "$work/root" "$peers/$peer"
    say "$peer: $(cat "$peers/$peer/VERSION")"
    rm -rf "$work"
}

update=0
[ "${1:-}" != --update ] || { update=1; shift; }
[ $# -ge 1 ] || die "usage: fetch.sh [--update] SUITE-strongswan|SUITE-libreswan|SUITE-wireguard|SUITE-openvpn|SUITE-nebula|SUITE-tinc..."
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    die "the peers come as Debian packages: a Debian system is needed"
mkdir -p "$peers"
exec 9>"$peers/.lock"
flock 9
for peer; do
    [ "$update" = 0 ] && [ -e "$peers/$peer/VERSION" ] && continue
    (fetch "$peer")
done
