# One image, two users: only readers, or writers that all say so, share it; another program's claim counts as well.
# shellcheck shell=bash
only_for ringback "claims on images" || return 0
image=$(new_image disk 16)
head -c 1048576 /dev/urandom | dd of="$image" conv=notrunc 2>/dev/null
backend_start
for guest in a b; do guest_create $guest; done

# refused GUEST IMAGE [OPTION]...: the attach fails with words about somebody else, and leaves no nodes
refused() {
  local said
  said=$(attach "$1" xvda "${@:2}" 2>&1) && { echo "$said"; return 1; }
  echo "$said"
  grep -q 'in use' <<<"$said" && [ -z "$(backend_node "$1" xvda state)" ]
}

attach a xvda "$image"
expect "a second writer is refused" refused b "$image"
expect "and a reader beside a writer" refused b "$image" --mode r
detach a xvda

attach a xvda "$image" --mode r
attach b xvda "$image" --mode r
expect_equal "two readers share it" "$(backend_list | wc -l)" 2
detach b xvda
expect "a writer beside a reader is refused" refused b "$image"
detach a xvda

for guest in a b; do
  attach_by_nodes $guest xvda params "raw:$image" mode w!
  require "guest $guest gets it as shared" backend_reaches $guest xvda 2
done
for guest in a b; do guest_start $guest; done
for guest in a b; do require "guest $guest sees the disk" guest_run $guest 'disk_ready xvda'; done
written=$(guest_run a 'head -c 65536 /dev/urandom | tee /tmp/data | sha256sum')
require "one writes" guest_run a 'dd if=/tmp/data of=/dev/xvda bs=64k oflag=direct conv=fsync'
expect_equal "the other one reads it" "$(guest_run b 'dd if=/dev/xvda bs=64k count=1 iflag=direct 2>/dev/null | sha256sum')" "$written"
for guest in a b; do detach $guest xvda; done

qemu-nbd --format=raw --socket=/run/lab/nbd --persistent --fork --pid-file=/run/lab/nbd.pid "$image"
expect "an image that qemu-nbd writes is refused" refused a "$image"
kill "$(cat /run/lab/nbd.pid)"
await 30 daemon_gone "$(cat /run/lab/nbd.pid)"
attach a xvda "$image"
require "when it has ended the guest gets it" guest_run a 'disk_ready xvda'
qemu_nbd_refused() { ! timeout 60 qemu-nbd --format=raw --socket=/run/lab/nbd --fork "$image"; }
expect "and qemu-nbd is refused in its turn" qemu_nbd_refused
