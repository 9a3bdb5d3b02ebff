# A guest reboots: its old device goes with the old domain, the new one finds its data.
# shellcheck shell=bash
image=$(new_image disk 16)
backend_start
guest_create g "on_reboot='restart'"
attach g xvda "$image"
guest_start g
require "the guest sees the disk" guest_run g 'disk_ready xvda'
written=$(guest_run g 'head -c 2097152 /dev/urandom | tee /tmp/data | sha256sum')
require "write to it" guest_run g 'dd if=/tmp/data of=/dev/xvda bs=64k oflag=direct conv=fsync'
old=$(guest_id g)
guest_send g 'reboot -f'
require "the guest comes back as another domain" guest_await_restart g
backend_forget "$old"
expect "the old domain's device is gone" await 30 no_device_of "$old"

attach g xvda "$image"
require "the new domain sees the disk" guest_run g 'disk_ready xvda'
expect_equal "with the data written before" "$(guest_run g 'head -c 2097152 /dev/xvda | sha256sum')" "$written"
expect "and can write" guest_run g 'dd if=/dev/zero of=/dev/xvda bs=64k count=16 oflag=direct conv=fsync'
