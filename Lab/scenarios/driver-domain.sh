# The daemon in an unprivileged domain serves another guest: xl in dom0 writes the nodes, `xl devd` over there runs Xen's
# own hotplug script. Daemon and images lie on a disk that dom0's kernel serves to that domain.
# shellcheck shell=bash
only_for ringback "a driver domain" || return 0

# kernel_disk DOMAIN VDEV IMAGE|: by dom0's own backend; without an image the disk is let go after the domain's end
kernel_disk() (
  # shellcheck source=dom0/blkback.sh
  . "$lab/dom0/blkback.sh"
  if [ -n "${3-}" ]; then backend_attach "$@"; else backend_forget "$1"; fi
)

no_node() { ! xenstore-exists "$1"; }

tree=/run/lab/tree
mkdir -p $tree
cp /images/root.ext4 $tree/disk
truncate -s 16M $tree/second
own=$images/own.ext4
truncate -s 512M "$own"
cp "$ringback" $tree/ringback
mkdir $tree/lib
/usr/lib64/ld-linux-x86-64.so.2 --list "$ringback" | awk '$2 == "=>" { print $3 }' | xargs -I FILE cp FILE $tree/lib/
mke2fs -q -t ext4 -d $tree "$own"
rm -r $tree

guest_create storage "ramdisk='/images/guest-driver.cpio'" "memory=320" "driver_domain=1"
kernel_disk "$(guest_id storage)" xvda "$own"
guest_start storage
driver=$(guest_id storage)
start_daemon='setsid ringback serve --log-level debug </dev/null >>/var/log/daemon.log 2>&1 & echo $! >/run/daemon.pid
  await 60 ringback list >/dev/null || { cat /var/log/daemon.log; false; }'
require "a daemon and xl devd start in an unprivileged domain" guest_run storage '
  while read -r module; do insmod "/modules/$module"; done </modules/driver-order
  mkdir -p /srv /run/xen /run/lock /var/log/xen /var/lib/xen
  ln -sf ../run /var/run
  ln -s fd/0 /dev/stdin; ln -s fd/1 /dev/stdout; ln -s fd/2 /dev/stderr
  mount -t xenfs xenfs /proc/xen
  disk_ready xvda && mount -t ext4 /dev/xvda /srv || exit
  ln -s /srv/lib/* /usr/lib/x86_64-linux-gnu/ 2>/dev/null   # but what is there already
  ln -s /srv/ringback /usr/bin/ringback; ln -s ringback /usr/bin/tap-ctl
  '"$start_daemon"' || exit
  setsid xl -vvv devd -F </dev/null >/var/log/devd.log 2>&1 &'
expect "the daemon has found its own domain" guest_run storage "grep 'in domain $driver ' /var/log/daemon.log"

require "xl creates a guest with a disk of that domain" guest_create g --kernel root=/dev/xvda \
  "disk=['format=raw,vdev=xvda,access=rw,backend=storage,backendtype=tap,target=/srv/disk']"
guest_start g
backend=/local/domain/$driver/backend/vbd3/$(guest_id g)/51712
expect_equal "the guest's root file system is on it" "$(guest_run g 'sed -n "s| / ext4 .*||p" /proc/mounts')" /dev/xvda
expect_equal "the backend is in domain $driver" "$(frontend_node g xvda backend)" "$backend"
expect_equal "the hotplug script ran there" "$(xenstore-read "$backend/hotplug-status")" connected
xenstore-ls -f -p "/local/domain/$driver" >"$logs/xenstore-driver.txt"

written=$(guest_run g 'head -c 2097152 /dev/urandom | tee /root/data | sha256sum; sync')
expect_equal "what is written comes back" "$(guest_run g 'echo 3 >/proc/sys/vm/drop_caches; sha256sum </root/data')" "$written"
# one command at a time runs in a guest: this one tells its rounds through xenstore, and ends when dom0 says so there
rounds=/local/domain/$(guest_id g)/data
guest_run g '
  until xenstore-exists data/enough; do
    dd if=/dev/urandom bs=64k count=4 2>/dev/null | tee /tmp/data | dd of=/root/copy bs=64k conv=fsync 2>/dev/null
    echo 1 >/proc/sys/vm/drop_caches
    cmp /tmp/data /root/copy || exit
    xenstore-write data/rounds $((++round))
  done' &
writer=$!
more_rounds() { [ "$(xenstore-read "$rounds/rounds" 2>/dev/null || echo 0)" -gt $(($1 + 1)) ]; }
await 60 more_rounds 0
require "the daemon is replaced by another one" guest_run storage '
  kill "$(cat /run/daemon.pid)"; await 30 test ! -e /proc/$(cat /run/daemon.pid) || exit
  '"$start_daemon"
expect "the guest goes on" await 60 more_rounds "$(xenstore-read "$rounds/rounds")"
xenstore-write "$rounds/enough" 1
expect "and all that it wrote came back" wait $writer

require "another disk is attached" xl block-attach g format=raw,vdev=xvdb,access=rw,backend=storage,backendtype=tap,target=/srv/second
expect "and used" guest_run g '
  disk_ready xvdb && dd if=/root/data of=/dev/xvdb bs=64k oflag=direct && cmp -n 2097152 /root/data /dev/xvdb'
expect "it is detached" xl block-detach g xvdb
expect "its nodes are gone" await 10 no_node "${backend%/*}/51728"
expect_equal "its tap too" "$(guest_run storage 'tap-ctl list | grep -c second')" 0

expect "the guest switches itself off" guest_power_off g
expect "all nodes of the guest are gone" await 30 no_node "${backend%/*}"
expect_equal "no tap is left" "$(guest_run storage 'tap-ctl list')" ""

# of a domain that is gone a driver domain can read nothing, not even that it is gone
require "another guest starts with the image" guest_create again \
  "disk=['format=raw,vdev=xvda,access=rw,backend=storage,backendtype=tap,target=/srv/second']"
guest_start again
require "and writes" guest_run again 'disk_ready xvda && dd if=/dev/urandom of=/dev/xvda bs=64k count=8 oflag=direct'
guest_send again 'while :; do dd if=/dev/zero of=/dev/xvda bs=64k oflag=direct; done'
backend=${backend%/*/*}/$(guest_id again)
expect "it is destroyed in the middle" xl destroy again
expect "all nodes of it are gone" await 5 no_node "$backend"
expect_equal "no tap is left of it" "$(guest_run storage 'tap-ctl list')" ""
expect_equal "no grant of it is mapped" "$(grants_mapped again)" 0
guest_run storage 'tail -n 200 /var/log/daemon.log' >"$logs/daemon-driver.log"
guest_run storage 'tail -n 200 /var/log/devd.log' >"$logs/devd.log"
expect "the driver domain switches itself off" guest_power_off storage
mkdir -p /run/lab/own
kernel_disk "$driver"
mount -t ext4 -o loop "$own" /run/lab/own
mount -t ext4 -o loop /run/lab/own/disk /mnt
expect_equal "the image holds what the guest wrote" "$(sha256sum </mnt/root/data)" "$written"
umount /mnt /run/lab/own
