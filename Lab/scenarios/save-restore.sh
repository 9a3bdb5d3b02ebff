# A guest is saved to a file in the middle of I/O and goes on from there as another domain: nothing of the disk is in
# use in between, and every round of writing and reading back comes out right.
# shellcheck shell=bash
only_for ringback "disks of backendtype=tap" || return 0
# shellcheck source=dom0/xl.sh
. "$lab/dom0/xl.sh"
xl_begin "Save and restore"
new_image disk 64 >/dev/null
backend_start
xl_guest g "$(tap_disk raw xvda disk)"
require "xl creates the guest" xl_create g
guest_await_ready g
require "it makes a file system" guest_run g 'disk_ready xvda && mke2fs -q -t ext4 /dev/xvda && mount -t ext4 /dev/xvda /mnt'
written=$(guest_run g 'head -c 4194304 /dev/urandom | tee /mnt/before | sha256sum; sync')

# one command at a time runs in a guest: this one tells its rounds through xenstore, and ends when dom0 says so there
guest_send g '
  until xenstore-exists data/enough; do
    dd if=/dev/urandom bs=64k count=4 2>/dev/null | tee /tmp/data | dd of=/mnt/during bs=64k conv=fsync 2>/dev/null
    echo 1 >/proc/sys/vm/drop_caches
    cmp /tmp/data /mnt/during 2>>/mnt/differences || break
    xenstore-write data/rounds $((++round))
  done'
rounds() { xenstore-read "/local/domain/$(guest_id g)/data/rounds" 2>/dev/null || echo 0; }
not_open() { ! daemon_holds "$1"; }
more_rounds() { [ "$(rounds)" -gt $(($1 + 2)) ]; }

for time in first second; do
  require "the guest writes and reads back" await 60 more_rounds "$(rounds)"
  old=$(guest_id g)
  note "The guest is writing while it is saved."
  require "xl save, the $time time" admin "xl save g /srv/g.save"
  expect "no domain, no node, no tap of it is left" nothing_left
  expect_equal "no page is mapped" "$(grants_mapped_of "$old")" 0
  expect "the daemon has let go of the image" not_open "$images/disk"
  require "xl restore" admin "xl restore /srv/g.save"
  require "it is another domain" guest_has_other_id g "$old"
  rm /srv/g.save
done
expect "the guest goes on" await 60 more_rounds "$(rounds)"
xenstore-write "/local/domain/$(guest_id g)/data/enough" 1
expect "all that was written came back" guest_run g '[ ! -s /mnt/differences ]'
expect_equal "so does what was written before" "$(guest_run g 'echo 3 >/proc/sys/vm/drop_caches; sha256sum </mnt/before')" "$written"
expect "it unmounts the disk" guest_run g 'umount /mnt'
expect "the guest switches itself off" guest_power_off g
expect "e2fsck finds the image clean" e2fsck -fn "$images/disk"
expect "nothing is left" nothing_left
sed -i "/xc: progress/d" "$logs/transcript.md"
