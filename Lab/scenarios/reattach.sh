# Disks come and go while the guest runs: the data stays with the image, and no page of the guest stays mapped.
# shellcheck shell=bash
backend_start
guest_create g
guest_start g
expect_equal "no page is mapped before" "$(grants_mapped g)" 0
first=$(new_image first 16) second=$(new_image second 16)
head -c 16777216 /dev/urandom >"$second"

attach g xvda "$first"
require "a disk appears in the running guest" guest_run g 'disk_ready xvda'
written=$(guest_run g 'head -c 2097152 /dev/urandom | tee /tmp/data | sha256sum')
require "write to it" guest_run g 'dd if=/tmp/data of=/dev/xvda bs=64k oflag=direct conv=fsync'
detach g xvda
expect "it disappears" guest_run g 'disk_gone xvda'
expect_equal "no page is mapped after detach" "$(grants_mapped g)" 0

attach g xvda "$second"
require "another image appears in its place" guest_run g 'disk_ready xvda'
expect_equal "with its own data" "$(guest_run g 'sha256sum </dev/xvda')" "$(sha256sum <"$second")"
detach g xvda
expect "it disappears" guest_run g 'disk_gone xvda'

attach g xvda "$first"
require "the first image comes back" guest_run g 'disk_ready xvda'
expect_equal "with what was written before" "$(guest_run g 'head -c 2097152 /dev/xvda | sha256sum')" "$written"
detach g xvda
expect_equal "no page is mapped at the end" "$(grants_mapped g)" 0
