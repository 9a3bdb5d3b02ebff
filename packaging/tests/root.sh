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
    mmdebstrap --variant=minbase --include="$minimum" "$1" "$cache/$1.tar.new" >"$cache/$1.log" 2>&1 ||
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
