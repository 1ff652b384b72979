#!/usr/bin/env bash
# Boots Debian's cloud kernel under QEMU with this machine's own files and runs one script in it. See docs/vm.md.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
repo=$(dirname "$here")
cache=${WARREN_VM_CACHE:-$repo/target/vm}

BOOT_SECONDS=180  # allowed on top of the script's own limit; a boot takes 2-3 s on an idle machine
VM_FAILED=125     # the machine died or could not be started: not the script's doing

# The initramfs needs these to reach its root; they are loaded in this order, with what they depend on.
BOOT_MODULES=(virtio_pci virtio_console virtio_blk fuse virtiofs overlay)

# What the image holds where / cannot be shared: these packages and all that they depend on, where installed.
IMAGE_PACKAGES=(
    bash coreutils util-linux mount procps psmisc grep sed mawk findutils diffutils tar gzip kmod hostname libc-bin
    iproute2 iputils-ping tcpdump nftables ethtool iperf3 openssl jq netcat-openbsd socat python3-minimal
    charon-systemd strongswan-swanctl libstrongswan-standard-plugins libcharon-extra-plugins
    libstrongswan-extra-plugins
)

usage() {
    cat <<'TXT'
usage: ./x vm [OPTION]... SCRIPT [ARG]...

  -o DIR         bring back what the script leaves in $VM_OUT
  -e NAME=VALUE  set a variable for the script (may be repeated)
  -f PATH        a file or folder that the script needs, for --image (may be repeated)
  -t SECONDS     time limit of the script (default 300; status 124 when it is exceeded)
  -m MIB         memory (default 1024)
  -c CPUS        processors (default 2)
  --console      the kernel's console on stderr when the script has ended
  --image        use an ext4 image even where / could be shared
  --update       look for a newer kernel first
TXT
}

say() { printf 'vm: %s\n' "$*" >&2; }
die() { say "$@"; exit "$VM_FAILED"; }

# ---- the kernel, cached ----

# The versioned package changes with every update of Debian: the meta package names it.
kernel_package() {
    apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1
}

patiently() { "$repo/interop/patiently.sh" 120 "$@"; }

fetch_kernel() {
    local package version work
    command -v apt-get >/dev/null || die "the kernel comes from a Debian mirror, and this is not a Debian system"
    package=$(kernel_package)
    # What an old list names may be gone from the mirror.
    if [ ! -e "$cache/${package#linux-image-}/base.cpio" ] && [ "$(id -u)" = 0 ]; then
        patiently apt-get update -qq
        package=$(kernel_package)
    fi
    [ -n "$package" ] || die "apt knows no linux-image-cloud-amd64: apt-get update, or add a Debian mirror"
    version=${package#linux-image-}
    [ -e "$cache/$version/base.cpio" ] && return
    say "fetching $package"
    work=$(mktemp -d "$cache/fetch.XXXXXX")
    (cd "$work" && patiently apt-get download -qq "$package" 2>&1 | grep -v unsandboxed >&2) || true
    dpkg-deb -x "$work/$package"_*.deb "$work/root" || die "$package could not be fetched"
    [ -e "$work/root/lib" ] || ln -s usr/lib "$work/root/lib"
    depmod -b "$work/root" "$version"
    base_initramfs "$work/root" "$version"
    rm -rf "${cache:?}/$version"
    mv "$work/root" "$cache/$version"
    rm -rf "$work"
}

# Busybox and the modules for the root filesystem: all that does not change from run to run.
base_initramfs() {
    local root=$1 version=$2 tree=$1/initramfs kind path
    mkdir -p "$tree"/{bin,dev,proc,sys,modules}
    cp /bin/busybox "$tree/bin/busybox"
    modprobe -d "$root" -S "$version" -a --show-depends "${BOOT_MODULES[@]}" |
        while read -r kind path _; do
            [ "$kind" = insmod ] && unpacked_module "$path" "$tree/modules"
        done | awk '!seen[$0]++' >"$tree/modules/order"
    pack "$tree" "$root/base.cpio"
    rm -rf "$tree"
}

unpacked_module() {
    local name=${1##*/}
    case $name in
        *.xz) name=${name%.xz}; xz -dc "$1" >"$2/$name" ;;
        *) cp "$1" "$2/$name" ;;
    esac
    echo "$name"
}

pack() { (cd "$1" && find . | cpio -o -H newc --quiet -R 0:0) >"$2"; }

kernels() { (cd "$cache" && find . -maxdepth 2 -name base.cpio -printf '%h\n' | sed 's#^\./##' | sort -V); }

prepare_kernel() {
    mkdir -p "$cache"
    exec 8>"$cache/.lock"
    flock 8
    if [ "$update" = 1 ] || [ -z "$(kernels)" ]; then fetch_kernel; fi
    kernel=$(kernels | tail -n 1)
    [ "$root_kind" = image ] && prepare_image
    exec 8>&-
}

# ---- the image, where virtiofs cannot be had ----

prepare_image() {
    local key work
    key=$({ cat "$here/run.sh"; dpkg-query -W; echo "$kernel"; } | sha256sum | cut -c1-16)
    image=$cache/root-$key.ext4
    [ -e "$image" ] && return
    say "making an image of the packages that the scripts use"
    rm -f "$cache"/root-*.ext4
    work=$(mktemp -d "$cache/image.XXXXXX")
    copy_packages "$work/root"
    cp -a "$cache/$kernel/lib/modules/$kernel" "$work/root/usr/lib/modules/"
    mke2fs -q -t ext4 -O ^has_journal -m 0 -E root_owner=0:0 -d "$work/root" "$work/ext4" 3G
    mv "$work/ext4" "$image"
    chmod -R u+w "$work"
    rm -rf "$work"
}

# Paths are listed by dpkg as they were packed: /bin and its kind may be links into /usr by now.
copy_packages() {
    local root=$1 link
    mkdir -p "$root"/usr/{bin,sbin,lib,lib64,lib/modules} "$root"/{dev,proc,sys,run,tmp,root,etc,vm} "$root"/var/{lib,log,cache,tmp}
    ln -s /run "$root/var/run"
    ln -s /run/lock "$root/var/lock"
    for link in bin sbin lib lib64; do ln -s "usr/$link" "$root/$link"; done
    closure | xargs dpkg -L 2>/dev/null | sed -E 's#^/(bin|sbin|lib|lib64)/#/usr/\1/#' |
        grep -vE '^/usr/share/(doc|man|locale|info|lintian|bash-completion)/|^/(etc|usr|var|run|lib|bin|sbin|lib64)$' |
        sort -u | readable >"$root/.list"
    find /usr/bin /usr/sbin -lname '/etc/alternatives/*' >>"$root/.list"
    tar -C / -cf - --no-recursion --ignore-failed-read -T "$root/.list" 2>/dev/null | tar -C "$root" -xf -
    tar -C / -cf - --ignore-failed-read etc 2>/dev/null | tar -C "$root" -xf -
    rm "$root/.list"
}

closure() {
    local installed wanted
    installed=$(dpkg-query -W -f='${db:Status-Abbrev}${Package}\n' | sed -n 's/^ii //p')
    mapfile -t wanted < <(printf '%s\n' "${IMAGE_PACKAGES[@]}" | grep -Fxf <(echo "$installed"))
    apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
        --no-enhances "${wanted[@]}" |
        sed -n 's/^\([a-z0-9].*\)$/\1/p' | sed 's/:.*//' | sort -u | grep -Fxf <(echo "$installed")
}

readable() {
    local path
    while IFS= read -r path; do
        [ ! -d "$path" ] && { [ -r "$path" ] || [ -L "$path" ]; } && printf '%s\n' "${path#/}"
    done
    return 0
}

# The project's own files lie on no package: they travel as a tar on a disk of its own.
pack_files() {
    local paths=("$here" "$script" "${files[@]}")
    [ -e "$repo/target/release/warren" ] && paths+=("$repo/target/release/warren")
    tar -C / -cf "$tmp/files.tar" "${paths[@]#/}"
    truncate -s %512 "$tmp/files.tar"
}

# ---- one run ----

# Holds a lock on its folder for as long as it lives, so that a later run knows what a killed one left behind.
make_tmp() {
    local base=${TMPDIR:-/tmp} old
    for old in "$base"/warren-vm.*/; do
        [ -e "$old/lock" ] && flock -n "$old/lock" true 2>/dev/null && rm -rf "$old"
    done
    # Locked before it has the name by which others find it.
    tmp=$(mktemp -d "$base/.warren-vm.XXXXXX")
    exec 9>"$tmp/lock"
    flock 9
    mv -T "$tmp" "$base/${tmp##*/.}"
    tmp=$base/${tmp##*/.}
    mkfifo "$tmp/never" # read with a time limit: a pause without a process
}

# Children must not keep the lock, and must not outlive this shell even where it is killed outright.
child() { exec 9>&- setpriv --pdeathsig KILL "$@"; }

# shellcheck disable=SC2317 # called by trap
cleanup() {
    local pid
    trap - EXIT INT TERM HUP
    for pid in "${children[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${children[@]}"; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$tmp"
}

virtiofsd_path() {
    local path
    for path in /usr/lib/qemu/virtiofsd /usr/libexec/virtiofsd; do
        [ -x "$path" ] && { echo "$path"; return; }
    done
}

choose_root() {
    [ "$root_kind" = image ] && return
    root_kind=image
    [ "$(id -u)" = 0 ] || { say "not root: an image takes the place of virtiofs"; return; }
    [ -n "$(virtiofsd_path)" ] || { say "no virtiofsd: an image takes its place"; return; }
    if start_share; then root_kind=share; else say "virtiofsd does not run here: an image takes its place"; fi
}

start_share() {
    local pid
    mkdir "$tmp/view"
    child unshare --mount --propagation private "$here/share.sh" "$(virtiofsd_path)" "$tmp/view" "$tmp/fs.sock" \
        >"$tmp/virtiofsd.log" 2>&1 &
    pid=$!
    children+=("$pid")
    for _ in {1..200}; do
        [ -S "$tmp/fs.sock" ] && return
        kill -0 "$pid" 2>/dev/null || break
        read -rt 0.02 <>"$tmp/never" || true
    done
    kill "$pid" 2>/dev/null || true
    tail -n 3 "$tmp/virtiofsd.log" >&2
    return 1
}

# init and the order for this run, laid over the cached initramfs: cpio archives may follow each other.
pack_job() {
    mkdir -p "$tmp/job/job"
    cp "$here/init" "$tmp/job/init"
    chmod 755 "$tmp/job/init"
    {
        echo "root_kind=$root_kind limit=$limit kernel=$kernel with_out=$([ -n "$out" ] && echo 1 || echo 0)"
        echo "modules='$cache/$kernel/lib/modules/$kernel'"
    } >"$tmp/job/job/settings"
    {
        echo "cd ${repo@Q}"
        [ ${#variables[@]} = 0 ] || echo "export ${variables[*]@Q}"
        echo "exec ${command[*]@Q}"
    } >"$tmp/job/job/run"
    pack "$tmp/job" "$tmp/job.cpio"
    cat "$cache/$kernel/base.cpio" "$tmp/job.cpio" >"$tmp/initramfs"
}

disk() { machine+=(-drive "if=none,id=$1,format=raw,cache=unsafe,file=$2$3" -device "virtio-blk-pci,drive=$1,serial=$1"); }

port() { machine+=(-chardev "file,id=$1,path=$tmp/$1" -device "virtserialport,chardev=$1,name=$1"); }

# shellcheck disable=SC2054 # the commas are QEMU's
describe_machine() {
    machine=(
        -nodefaults -no-user-config -no-reboot -display none
        # cx16=off: kernels from 6.12 on crash at boot under QEMU 7.2 with it.
        -accel tcg,thread=multi -cpu max,cx16=off -smp "$cpus"
        -object "memory-backend-memfd,id=mem,size=${memory}M,share=on" -machine pc,memory-backend=mem -m "$memory"
        -kernel "$cache/$kernel/boot/vmlinuz-$kernel" -initrd "$tmp/initramfs"
        -append "console=ttyS0 loglevel=5 panic=-1 oops=panic cryptomgr.notests=1 mitigations=off audit=0 no_timer_check rcupdate.rcu_expedited=1"
        -chardev "file,id=console,path=$tmp/console" -serial chardev:console
        -device virtio-serial-pci
    )
    port stdout
    port stderr
    port status
    if [ "$root_kind" = share ]; then
        machine+=(-chardev "socket,id=fs,path=$tmp/fs.sock" -device vhost-user-fs-pci,chardev=fs,tag=host)
    else
        pack_files
        disk root "$image" ,readonly=on
        disk files "$tmp/files.tar" ,readonly=on
    fi
    if [ -n "$out" ]; then
        truncate -s 8G "$tmp/out"
        disk out "$tmp/out" ""
    fi
}

# Output comes through pipes as it is written. (With -chardev stdio the guest blocks once our stdin has ended.)
run_machine() {
    local readers=() qemu
    mkfifo "$tmp/stdout" "$tmp/stderr"
    child cat "$tmp/stdout" & readers+=($!)
    child cat "$tmp/stderr" >&2 & readers+=($!)
    children+=("${readers[@]}")
    child timeout --foreground -k 5 $((limit + BOOT_SECONDS)) setpriv --pdeathsig KILL \
        qemu-system-x86_64 "${machine[@]}" </dev/null >"$tmp/qemu.log" 2>&1 &
    qemu=$!
    children+=("$qemu")
    if wait "$qemu"; then
        wait "${readers[@]}"
    else
        say "qemu ended with status $?"
        tail -n 5 "$tmp/qemu.log" >&2
    fi
}

bring_back() {
    local status
    [ "$console" = 1 ] && [ -e "$tmp/console" ] && cat "$tmp/console" >&2
    status=$(cat "$tmp/status" 2>/dev/null || true)
    if ! [[ $status =~ ^[0-9]+$ ]]; then
        say "the machine died before the script had ended; the last that its kernel said:"
        tail -n 40 "$tmp/console" >&2 2>/dev/null || true
        exit "$VM_FAILED"
    fi
    if [ -n "$out" ]; then
        mkdir -p "$out"
        tar -C "$out" --no-same-owner -xf "$tmp/out"
    fi
    [ "$status" = 124 ] && say "the script was ended after $limit seconds"
    exit "$status"
}

# ---- the command line ----

out='' limit=300 memory=1024 cpus=2 console=0 update=0 root_kind=auto
variables=() files=() children=() machine=() image='' kernel='' tmp=''

while [ $# -gt 0 ]; do
    case $1 in
        -o | -e | -f | -t | -m | -c) [ $# -ge 2 ] || { usage >&2; exit 2; } ;;&
        -o) out=$2; shift ;;
        -e) variables+=("$2"); shift ;;
        -f) files+=("$(realpath "$2")"); shift ;;
        -t) limit=$2; shift ;;
        -m) memory=$2; shift ;;
        -c) cpus=$2; shift ;;
        --console) console=1 ;;
        --image) root_kind=image ;;
        --update) update=1 ;;
        -h | --help) usage; exit ;;
        -*) usage >&2; exit 2 ;;
        *) break ;;
    esac
    shift
done
[ $# -ge 1 ] || { usage >&2; exit 2; }
for number in "$limit" "$memory" "$cpus"; do
    [[ $number =~ ^[1-9][0-9]{0,6}$ ]] || { say "not a number: $number"; exit 2; }
done

script=$(realpath "$1")
[ -f "$script" ] || { say "no such script: $1"; exit 2; }
case $script in
    /dev/* | /proc/* | /run/* | /sys/*) say "the machine has its own ${script%"${script#/*/}"}: put the script elsewhere"; exit 2 ;;
esac
shift
if [ -x "$script" ]; then command=("$script" "$@"); else command=(/bin/bash "$script" "$@"); fi

make_tmp
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
choose_root
prepare_kernel
pack_job
describe_machine
run_machine
bring_back
