# limit: 480
# xl block-attach, block-list and block-detach on a running guest: raw and VHD, writable and not, idle and in the middle of writing.
# shellcheck shell=bash
only_for ringback "xl with backendtype=tap" || return 0
xl_begin "Disks that come and go"
new_image raw.img 16
qemu-img create -q -f vpc -o force_size=on /srv/disk.vhd 16M
head -c 1048576 /dev/urandom >/srv/read.img
daemon start
xl_guest alpha
require "xl creates a guest without disks" xl_create alpha
require "it starts" guest_await_ready alpha
id=$(guest_id alpha)

while read -r format file; do
  note "A disk of format $format is attached, used, and detached:"
  require "xl attaches $file" admin "xl block-attach alpha '$(tap_disk "$format" xvdb "$file")'"
  require "the guest sees the disk" guest_run alpha 'disk_ready xvdb'
  expect "xl lists it" admin "xl block-list alpha"
  expect_equal "as connected" "$(awk '$1 == 51728 { print $4 }' /run/lab/said)" 4
  expect_equal "xentop sees it" "$(xentop -b -i 1 -x | grep -c 'VBD.*51728')" 1
  expect "and tap-ctl" admin "tap-ctl list"
  require "the guest writes to it" in_guest alpha 'head -c 2097152 /dev/urandom >/tmp/data; dd if=/tmp/data of=/dev/xvdb bs=64k oflag=direct conv=fsync 2>&1 | tail -n 1'
  require "xl detaches it" admin "xl block-detach alpha xvdb"
  require "it goes" guest_run alpha 'disk_gone xvdb'
  expect "nothing is left of it" nothing_left_of "$id" xvdb
  expect_equal "no tap is left" "$(tap-ctl list)$(leftover_files | grep -v '^process xl ')" ""
  require "xl attaches it again" admin "xl block-attach alpha '$(tap_disk "$format" xvdb "$file")'"
  expect "the guest reads what it wrote" in_guest alpha 'disk_ready xvdb; dd if=/dev/xvdb bs=64k count=32 2>/dev/null | cmp - /tmp/data && echo same'
  require "xl detaches it" admin "xl block-detach alpha xvdb"
  require "it goes" guest_run alpha 'disk_gone xvdb'
done <<'DISKS'
raw raw.img
vhd disk.vhd
DISKS

note "A disk that is only read:"
require "xl attaches a read-only disk" admin "xl block-attach alpha '$(tap_disk raw xvdb read.img ro)'"
expect "the guest cannot write to it" in_guest alpha 'disk_ready xvdb; cat /sys/block/xvdb/ro; dd if=/dev/zero of=/dev/xvdb bs=64k count=1 2>&1 | grep -v records'
expect_equal "and reads what it holds" "$(guest_run alpha 'sha256sum </dev/xvdb')" "$(sha256sum </srv/read.img)"
require "xl detaches it" admin "xl block-detach alpha xvdb"
require "it goes" guest_run alpha 'disk_gone xvdb'

note "A disk that the guest writes to at that moment:"
require "xl attaches a disk" admin "xl block-attach alpha '$(tap_disk raw xvdb raw.img)'"
require "the guest sees it" guest_run alpha 'disk_ready xvdb'
guest_send alpha 'while [ -b /dev/xvdb ]; do dd if=/dev/zero of=/dev/xvdb bs=128k count=64 oflag=direct; done'
require "and writes without end" await 60 counter_reaches alpha xvdb writes 100
expect "xl detaches it" admin "xl block-detach alpha xvdb"
expect "nothing is left of it" nothing_left_of "$id" xvdb
expect_equal "no page is mapped" "$(grants_mapped alpha)" 0
admin "xl destroy alpha"
expect "nothing is left" nothing_left
