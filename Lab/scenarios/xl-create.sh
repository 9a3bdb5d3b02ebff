# limit: 480
# Stock xl and its block-tap script: guests boot from raw and VHD images, have several disks, are shut down and created again.
# shellcheck shell=bash
only_for ringback "xl with backendtype=tap" || return 0
xl_begin "Guests that boot from their disks"
cp /images/root.ext4 /srv/alpha.img
qemu-img convert -q -f raw -O vpc -o force_size=on /images/root.ext4 /srv/beta.vhd
new_image alpha-data.img 32
daemon start
xl_guest alpha --kernel root=/dev/xvda "$(tap_disk raw xvda alpha.img)" "$(tap_disk raw xvdb alpha-data.img)"
xl_guest beta --kernel root=/dev/xvda "$(tap_disk vhd xvda beta.vhd)"

note "A guest with two raw disks, one of which is its root, and one with a VHD:"
admin "grep ^disk /etc/xen/alpha.cfg /etc/xen/beta.cfg"
require "xl creates a guest with two raw disks" xl_create alpha
expect_equal "xentop sees both at once" "$(xentop -b -i 1 -x | grep -c 'VBD.*517[12]')" 2
require "and a guest with a VHD" xl_create beta
admin "xl list"
for guest in alpha beta; do
  require "guest $guest starts" guest_await_ready $guest
  expect "from its disk" in_guest $guest 'grep /dev/xvda /proc/mounts'
done
expect "xl lists alpha's disks" admin "xl block-list alpha"
expect_equal "two of them, connected" "$(awk '$1 ~ /^517/ && $4 == 4' /run/lab/said | wc -l)" 2
expect "tap-ctl lists all" admin "tap-ctl list"
expect_equal "three taps" "$(grep -c 'pid=.* minor=.* args=' /run/lab/said)" 3
admin "ringback list"
require "alpha fills its disks" in_guest alpha \
  'mke2fs -q -t ext4 /dev/xvdb && mount -t ext4 /dev/xvdb /mnt && head -c 4194304 /dev/urandom | tee /mnt/data /root/data | sha256sum; umount /mnt'
written=$(cut -d' ' -f1 /run/lab/said)
require "beta too" in_guest beta 'head -c 4194304 /dev/urandom | tee /root/data | sha256sum; sync'
written_beta=$(cut -d' ' -f1 /run/lab/said)

note "Shut down and created again, alpha finds what it wrote; beta goes on meanwhile."
old=$(guest_id alpha)
require "xl shuts alpha down" admin "xl shutdown -w alpha"
for disk in xvda xvdb; do expect "nothing is left of $disk" nothing_left_of "$old" $disk; done
expect_equal "one tap is left" "$(tap-ctl list | wc -l)" 1
require "xl creates alpha again" xl_create alpha
require "it starts" guest_await_ready alpha
expect "with its data on both disks" in_guest alpha 'mount -t ext4 /dev/xvdb /mnt && sha256sum /mnt/data /root/data; umount /mnt'
expect_equal "which are the same" "$(grep -c "^$written" /run/lab/said)" 2
require "xl shuts both down" admin "xl shutdown -a -w"
expect "nothing is left" nothing_left
admin "xl list"
admin "tap-ctl list"
admin "xenstore-ls /local/domain/0/backend" || true   # which is not there any more
qemu-img convert -f vpc -O raw /srv/beta.vhd /srv/beta.img
for image in alpha alpha-data beta; do expect "the file system of $image is clean" e2fsck -fn /srv/$image.img; done
expect_equal "the VHD holds what beta wrote" "$(debugfs -R 'cat /root/data' /srv/beta.img 2>/dev/null | sha256sum | cut -d' ' -f1)" "$written_beta"
