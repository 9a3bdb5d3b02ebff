# Debian roots for the tests of the package; sourced by them.
# shellcheck shell=bash
# shellcheck disable=SC2034  # cache is for those who source this file

cache=${RINGBACK_DEB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ringback-deb}
# What a minimal installation with systemd has.
minimum=systemd,systemd-sysv,udev,kmod

[ "$(id -u)" = 0 ] || exec sudo --preserve-env=RINGBACK_DEB_CACHE,HOME "$0" "$@"

# unpack_root SUITE DIRECTORY: a minimal Debian, downloaded once
unpack_root() {
  mkdir -p "$cache" "$2"
  if [ ! -s "$cache/$1.tar" ]; then
    echo "downloading a minimal $1 into $cache" >&2
    mmdebstrap --format=tar --variant=minbase --include="$minimum" "$1" "$cache/$1.tar.new" >"$cache/$1.log" 2>&1 ||
      { tail -5 "$cache/$1.log" >&2; return 1; }
    mv "$cache/$1.tar.new" "$cache/$1.tar"
  fi
  tar -x -f "$cache/$1.tar" -C "$2" --numeric-owner
  # as the machine that runs the test finds its archive
  cp -L /etc/resolv.conf "$2/etc/resolv.conf" 2>/dev/null || true
  if ls /etc/apt/apt.conf.d/*proxy* >/dev/null 2>&1; then cp /etc/apt/apt.conf.d/*proxy* "$2/etc/apt/apt.conf.d/"; fi
  # no service is started by an installation in here
  printf '#!/bin/sh\nexit 101\n' >"$2/usr/sbin/policy-rc.d"
  chmod 755 "$2/usr/sbin/policy-rc.d"
}

# in_root DIRECTORY COMMAND...: runs a command there, with mounts and processes of its own that end with it
in_root() {
  # shellcheck disable=SC2016  # the inner shell expands
  unshare --mount --pid --fork --kill-child sh -ec '
    mount --make-rprivate /
    mount -t proc proc "$0/proc"
    mount -t tmpfs tmpfs "$0/run"
    mount -t tmpfs tmpfs "$0/tmp"
    mount --rbind /dev "$0/dev"
    exec chroot "$0" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C DEBIAN_FRONTEND=noninteractive "$@"
  ' "$@"
}

# next_version DEB OUT VERSION: the same package as a later one, to upgrade to
next_version() {
  local tree
  tree=$(mktemp -d)
  dpkg-deb -R "$1" "$tree"
  sed -i "s/^Version: .*/Version: $3/" "$tree/DEBIAN/control"
  dpkg-deb --root-owner-group -Znone -b "$tree" "$2" >/dev/null
  rm -rf "$tree"
}

# For roots that are booted, with the lab's kernel.
lab_cache=${RINGBACK_LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/ringback-lab}
lab_root=$lab_cache/root

# bootable_root SUITE DIRECTORY PACKAGES NAME...: a root with the package among PACKAGES, the next version of it in
# /root/next.deb, and Debian's packages NAME...; sets kernel
bootable_root() {
  local tree=$2 packages=("$3"/ringback_*.deb)
  unpack_root "$1" "$tree"
  cp "${packages[0]}" "$tree/root/ringback.deb"
  next_version "${packages[0]}" "$tree/root/next.deb" "$(dpkg-deb -f "${packages[0]}" Version)+next1"
  # shellcheck disable=SC2016  # the inner shell expands
  in_root "$tree" sh -ec 'apt-get -q update
    apt-get -q -y --no-install-recommends install /root/ringback.deb "$@"
    apt-get clean' sh "${@:4}" >"$tree.log" 2>&1 || { tail -n 15 "$tree.log" >&2; return 1; }
  rm -f "$tree/usr/sbin/policy-rc.d"
  rm -rf "$tree"/usr/share/{doc,locale,man,i18n} "$tree"/var/lib/apt/lists
  echo inside >"$tree/etc/hostname"
  ln -sf /sbin/init "$tree/init"
  "$(dirname "${BASH_SOURCE[0]}")/../../Lab/build-images"
  kernel=$(cd "$lab_root/usr/lib/modules" && echo *)
}

# add_modules DIRECTORY NAME...: modules of the lab's kernel, and those that they need
add_modules() {
  local tree=$1 modules=usr/lib/modules/$kernel name
  install -D -m 644 -t "$tree/$modules" "$lab_root/$modules"/modules.{builtin,builtin.modinfo,order}
  for name in "${@:2}"; do
    # the lab's own kmod: this machine may have none
    "$lab_root/usr/lib64/ld-linux-x86-64.so.2" --library-path "$lab_root/usr/lib/x86_64-linux-gnu" --argv0 modprobe \
      "$lab_root/usr/bin/kmod" -d "$lab_root" -S "$kernel" --show-depends "$name"
  done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
    install -D -m 644 "$file" "$tree/$modules/${file#*"/lib/modules/$kernel/"}"
  done
  in_root "$tree" depmod "$kernel"
}

# start_inside DIRECTORY SCRIPT CONSOLE: runs the script once everything has started, and switches off
start_inside() {
  install -m 755 "$(dirname "${BASH_SOURCE[0]}")/$2" "$1/root/$2"
  install -D -m 644 /dev/stdin "$1/etc/systemd/system/inside.service" <<UNIT
[Unit]
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c '/root/$2 >/dev/$3 2>&1; systemctl poweroff --force --force'
[Install]
WantedBy=multi-user.target
UNIT
  ln -sf /dev/null "$1/etc/systemd/system/serial-getty@$3.service"
  in_root "$1" systemctl enable inside.service >/dev/null 2>&1
}

# pack_root DIRECTORY FILE: the root as an initial memory disk
pack_root() { (cd "$1" && find . -xdev -print0 | cpio -0 -o -H newc --quiet) >"$2"; }

# judge CONSOLE LOG: tells what the script inside has said; false unless every check passed
judge() {
  tr -d '\r' <"$1" | sed -n 's/^.*\(ok   \|FAIL\|note \)/\1/p'
  grep -q 'every check passed' "$1" || { tail -n 60 "$1" "$2" >&2; return 1; }
}
