# Persistent grants: both sides agree on them, and pages are then mapped once, not for each request.
# shellcheck shell=bash
image=$(new_image disk 64)
backend_start
guest_create g
attach g xvda "$image"
guest_start g
require "the guest sees the disk" guest_run g 'disk_ready xvda'
expect_equal "the backend offers them" "$(backend_node g xvda feature-persistent)" 1
expect_equal "the frontend agrees" "$(frontend_node g xvda feature-persistent)" 1

write='dd if=/dev/zero of=/dev/xvda bs=64k count=500 oflag=direct conv=fsync'
require "500 writes of 16 pages" guest_run g "$write"
first=$(grants_mapped g)
expect "pages stay mapped while nothing happens ($first)" test "$first" -gt 16
require "500 more" guest_run g "$write"
expect "the second 500 map hardly any new ones" test "$(grants_mapped g)" -le $((first + 32))

if only_for ringback "the daemon counts them"; then
  expect_equal "the daemon knows that they are persistent" "$(counter g xvda usesPersistentGrants)" true
  expect "it holds those pages" test "$(counter g xvda persistentGrants)" -ge 16
  mapped=$(counter g xvda grantsMapped)
  copies=$(counter g xvda grantCopies)
  require "500 more" guest_run g "$write"
  expect "they were served with hardly any new mapping" test $(($(counter g xvda grantsMapped) - mapped)) -le 32
  expect_equal "and copies nothing through the hypervisor" "$(($(counter g xvda grantCopies) - copies))" 0
fi
