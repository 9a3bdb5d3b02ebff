# The socket that libxl hands to QEMU and pygrub, while the guest is not running: what its disk holds is read and written
# over NBD. When the guest's ring connects, the image is taken back, also from one who is in the middle of it.
# shellcheck shell=bash
only_for ringback "disks of backendtype=tap" || return 0
# shellcheck source=dom0/xl.sh
. "$lab/dom0/xl.sh"
xl_begin "The disk of a guest that does not run yet, over NBD"
head -c 16777216 /dev/urandom >/srv/disk
head -c 16777216 /dev/urandom >/srv/next
backend_start
xl_guest g "$(tap_disk raw xvda disk)"
require "xl creates a paused guest" admin "xl create -p /etc/xen/g.cfg"
guest_lookup g
socket=$(backend_node g xvda physical-device-path)
note "The node physical-device-path names the socket: $socket."
nbd="nbd+unix:///?socket=$socket"
require "qemu-img reads the disk" admin "qemu-img convert -f raw -O raw '$nbd' /srv/copy"
expect "it holds what the image holds" cmp /srv/copy /srv/disk
require "qemu-img writes the disk" admin "qemu-img convert -n -f raw -O raw /srv/next '$nbd'"
expect "the image holds what was written" await 10 cmp /srv/next /srv/disk

client_failed() { ! wait "$client"; }
no_server() { ! pidof qemu-storage-daemon; }
qemu-img bench -f raw -c 1000000 "$nbd" >"$logs/bench.log" 2>&1 &
client=$!
require "a client uses the image" await 30 pidof qemu-storage-daemon
guest_start g
require "the guest gets its disk nevertheless" guest_run g 'disk_ready xvda'
expect "the client has lost it" client_failed
expect "nobody serves it over NBD" await 10 no_server
expect_equal "the guest reads what was written" "$(guest_run g 'sha256sum </dev/xvda')" "$(sha256sum </srv/next)"
expect "while it runs, nobody else gets the disk" fails "timeout 60 qemu-img info '$nbd'"
expect "the guest writes" guest_run g 'head -c 1048576 /dev/urandom >/tmp/data && dd if=/tmp/data of=/dev/xvda bs=64k conv=fsync'
expect "the guest switches itself off" guest_power_off g
expect "nothing is left" nothing_left
