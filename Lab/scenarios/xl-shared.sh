# limit: 480
# Two guests want the same image, or a guest and another program: the second writer is refused in xl's own output.
# shellcheck shell=bash
only_for ringback "xl with backendtype=tap" || return 0
xl_begin "Two users of one image"
new_image disk.img 16
daemon start
for guest in alpha beta; do
  xl_guest $guest
  require "guest $guest" xl_create $guest
done
# attach GUEST VDEV [MODE] and so on, on disk.img
take() { admin "xl block-attach $1 '$(tap_disk raw "$2" disk.img "${3-rw}")'"; }
drop() { admin "xl block-detach $1 $2"; }
# refused GUEST VDEV [MODE]: xl says that the script failed, and the guest has nothing of the disk. What xl itself leaves of an
# attach that failed, with every kind of backend, block-detach takes away
refused() {
  expect "$1 is refused" not_taken "$@"
  drop "$1" "$2" || true
  expect "nothing is left of the attempt" nothing_left_of "$(guest_id "$1")" "$2"
}
not_taken() { ! take "$@" && said 'script: .*(in use|Could not open)'; }

note "A second guest that would write to it is refused, and so is one that reads what another one writes:"
require "alpha gets the image" take alpha xvdb
refused beta xvdb
expect "the daemon's log names the cause" grep 'disk.img.*in use' /run/lab/daemon.log
refused beta xvdb ro
expect_equal "one tap, alpha's" "$(tap-ctl list | wc -l)" 1
require "alpha starts and uses it" guest_await_ready alpha
require "it writes" in_guest alpha 'disk_ready xvdb; dd if=/dev/urandom of=/dev/xvdb bs=64k count=16 oflag=direct conv=fsync 2>&1 | tail -n 1'
require "alpha gives it back" drop alpha xvdb
require "now beta gets it" take beta xvdb
require "and uses it" in_guest beta 'disk_ready xvdb; dd if=/dev/xvdb of=/dev/null bs=64k 2>&1 | tail -n 1'
require "beta gives it back" drop beta xvdb

note "Both may read:"
for guest in alpha beta; do require "$guest reads" take $guest xvdb ro; done
expect_equal "one tap serves both" "$(tap-ctl list | wc -l)" 1
for guest in alpha beta; do expect "$guest sees the disk" guest_run $guest 'disk_ready xvdb && dd if=/dev/xvdb of=/dev/null bs=64k'; done
require "alpha gives it back" drop alpha xvdb
expect "beta goes on" guest_run beta 'dd if=/dev/xvdb of=/dev/null bs=64k iflag=direct'
require "beta gives it back" drop beta xvdb
expect_equal "no tap is left" "$(tap-ctl list)" ""

note "An image that another program writes to:"
qemu-nbd --format=raw --socket=/run/lab/nbd --persistent --fork --pid-file=/run/lab/nbd.pid /srv/disk.img
refused alpha xvdb
expect "the script's log names the cause" grep 'tap-ctl open: .*in use' /var/log/xen/xen-hotplug.log
kill "$(cat /run/lab/nbd.pid)"
await 30 daemon_gone "$(cat /run/lab/nbd.pid)"
require "when it has ended the guest gets it" take alpha xvdb
for guest in alpha beta; do admin "xl destroy $guest"; done
expect "nothing is left" nothing_left
