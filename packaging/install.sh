#!/bin/sh
# Puts a built program, its pages, completions and units where a distribution expects them:
#   packaging/install.sh target/release/warren [DESTDIR]
set -eu
program=$1
root=${2:-}
here=$(dirname "$0")

install -D -m 755 "$program" "$root/usr/bin/warren"
"$program" man "$root/usr/share/man/man1"
complete() {
    mkdir -p "$root/$(dirname "$2")"
    "$program" completions "$1" >"$root/$2"
}
complete bash usr/share/bash-completion/completions/warren
complete zsh usr/share/zsh/vendor-completions/_warren
complete fish usr/share/fish/vendor_completions.d/warren.fish
for unit in warren.service warren-guard.service; do
    install -D -m 644 "$here/$unit" "$root/usr/lib/systemd/system/$unit"
done
for text in "$here"/../docs/*.md; do
    install -D -m 644 "$text" "$root/usr/share/doc/warren/$(basename "$text")"
done
