# `xl destroy` in the middle of I/O: no grant stays mapped, no device stays, and the image can be used again.
# shellcheck shell=bash
image=$(new_image disk 16)
backend_start
guest_create g
attach g xvda "$image"
guest_start g
require "the guest sees the disk" guest_run g 'disk_ready xvda'
guest_send g 'while :; do dd if=/dev/urandom of=/dev/xvda bs=128k count=64 oflag=direct; done'
require "the guest writes" await 30 counter_reaches g xvda writes 100
old=$(guest_id g)
guest_destroy g
expect "the hypervisor has let go of the domain" await 30 no_domain_left
expect "no device is left in xenstore" await 30 no_device_left
expect_equal "the backend has no device" "$(backend_list)" ""
expect_equal "no grant of the domain is left" "$(grants_mapped_of "$old")" 0

before=$(sum_of "$image")
guest_create again
attach again xvda "$image"
guest_start again
require "another guest gets the image" guest_run again 'disk_ready xvda'
expect_equal "and reads what it holds" "$(guest_run again 'sha256sum </dev/xvda')" "$before  -"
