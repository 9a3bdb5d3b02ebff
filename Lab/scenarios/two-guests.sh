# Two guests at once, each with a disk: both write and read at the same time, neither sees the other's data.
# shellcheck shell=bash
backend_start
for guest in a b; do
  guest_create $guest
  attach $guest xvda "$(new_image $guest 16)"
done
for guest in a b; do guest_start $guest; done
for guest in a b; do require "guest $guest sees its disk" guest_run $guest 'disk_ready xvda'; done

write_and_check='
  set -e
  head -c 4194304 /dev/urandom >/tmp/data
  for round in 1 2 3; do
    dd if=/tmp/data of=/dev/xvda bs=32k oflag=direct conv=fsync 2>/dev/null
    dd if=/dev/xvda of=/tmp/back bs=4k count=1024 iflag=direct 2>/dev/null
    cmp /tmp/data /tmp/back
  done'
guest_run a "$write_and_check" & first=$!
guest_run b "$write_and_check" & second=$!
expect "guest a reads back what it wrote" wait $first
expect "guest b reads back what it wrote" wait $second
for guest in a b; do
  expect_equal "guest $guest's image holds its data" \
    "$(head -c 4194304 "$images/$guest" | sha256sum)" "$(guest_run $guest 'sha256sum </tmp/data')"
done

guest_destroy a
expect "guest b's disk works after guest a is gone" guest_run b 'dd if=/dev/xvda of=/dev/null bs=64k count=64 iflag=direct'
