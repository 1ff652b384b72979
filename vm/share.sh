#!/usr/bin/env bash
# share.sh VIRTIOFSD VIEW SOCKET: serves a read-only view of / on SOCKET. Runs in a mount namespace of its own, so
# that the view is gone with the process. Other file systems appear in the view where they are mounted, except those
# that the virtual machine has of its own.
set -euo pipefail
virtiofsd=$1 view=$2 socket=$3

show() {
    mount --bind "$1" "$view$1" && mount -o remount,bind,ro "$view$1"
}

show /
findmnt -rno TARGET | while IFS= read -r target; do
    case $target in
        / | /dev | /dev/* | /proc | /proc/* | /run | /run/* | /sys | /sys/* | "$view" | "$view"/*) ;;
        *) if [ -e "$view$target" ]; then show "$target" || echo "not shared: $target" >&2; fi ;;
    esac
done

exec "$virtiofsd" -f --socket-path="$socket" -o source="$view" -o sandbox=chroot -o cache=always
