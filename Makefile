# Ringback: Xen PV backends in userspace. `make help` lists what can be made.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Every symbol is bound at the start, so that the table of addresses is read-only from then on.
RELEASE_FLAGS := -c release -Xswiftc -cross-module-optimization --static-swift-stdlib -Xlinker -z -Xlinker now
BINARY := .build/release/ringback
REPORTS := .build/reports
# What packaging/documents makes from the binary.
DOCUMENTS := .build/documents
# Where `make install` puts things; packaging/install knows the other directories, by the names that GNU gave them.
export DESTDIR PREFIX bindir sbindir sysconfdir mandir docdir unitdir scriptdir bashdir zshdir fishdir

.PHONY: help packages lab-packages build release demo test unit unit-libaio lint lab lab-smoke bench \
  documents install uninstall deb package-tests test-deb test-unit test-dom0 clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

packages: ## install the Debian packages that building and testing miss
	@scripts/install-packages libxen-dev liburing-dev libaio-dev libnbd-dev pkg-config xenstore-utils e2fsprogs qemu-utils qemu-system-common nbdkit libnbd-bin iproute2 iputils-ping

lab-packages: packages ## install what the lab (real Xen under QEMU) misses on this machine
	@scripts/install-packages qemu-system-x86 cpio zstd xz-utils debian-archive-keyring

build: packages ## build everything, debug
	swift build --build-tests

release: packages ## build the daemon, optimised, with the Swift runtime inside
	swift build $(RELEASE_FLAGS) --product ringback

demo: release ## serve a disk and an interface to guest processes on this machine, without Xen
	@scripts/install-packages iproute2 iputils-ping iperf3
	@$(BINARY) demo

# Two runs: tests that wait for a processor use up their time limits, and two processors are soon taken.
NETWORK_TESTS := NetbackTests\.|NetFrontend|NetDevice|Network[A-Za-z]*Tests|Switch|LinkWatchTests|TapDeviceTests|TapQueueTests

unit: build ## unit, oracle, tidy and Loopback end-to-end tests
	swift test --skip-build --skip '$(NETWORK_TESTS)'
	swift test --skip-build --filter '$(NETWORK_TESTS)'

unit-libaio: build ## the end-to-end tests once more, with libaio in place of io_uring
	RINGBACK_TEST_ENGINE=aio swift test --skip-build --filter EndToEndTests

lint: ## check the formatting
	swift format lint --recursive --strict Sources Tests Package.swift

lab-smoke: release lab-packages ## a real Linux guest on real Xen mounts and verifies a disk, in short
	Lab/run --binary $(BINARY) --smoke

lab: release lab-packages ## every scenario of the lab
	Lab/run --binary $(BINARY) --all

test: ## everything that has to pass: unit, end-to-end and the lab's smoke part
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory package-tests
	@$(MAKE) --no-print-directory lab-smoke
	@echo "ringback: all tests passed"

bench: release ## compare with fio on the same file (about a minute and a half)
	@scripts/install-packages fio jq
	Bench/disk-against-fio --binary $(BINARY)

$(BINARY):
	@echo "there is no $(BINARY) yet: \`make release\` builds it" >&2; exit 1

documents: $(BINARY)
	@scripts/install-packages jq
	@packaging/documents $(BINARY) $(DOCUMENTS)

install: documents ## install what `make release` built (DESTDIR, PREFIX=/usr/local, unitdir, ...)
	@packaging/install install $(BINARY) $(DOCUMENTS)

uninstall: ## take it away again; a changed /etc/ringback.toml stays
	@packaging/install uninstall

deb: release documents ## build the Debian package, for Debian 12 and 13, into .build/deb
	@scripts/install-packages debhelper lintian chrpath
	@packaging/build-deb $(BINARY) .build/deb

package-tests: release documents ## check man pages, the unit, `make install` and the hotplug script
	@scripts/install-packages mandoc man-db jq xenstore-utils systemd shellcheck
	@shellcheck -x packaging/{build-deb,documents,install,hotplug/block-ringback,tests/*}
	packaging/tests/pages $(BINARY) $(DOCUMENTS)
	packaging/tests/install $(BINARY) $(DOCUMENTS)
	packaging/tests/hotplug $(BINARY)

test-deb: deb ## install, upgrade and remove the package in roots of Debian 12 and 13
	@scripts/install-packages mmdebstrap
	packaging/tests/deb .build/deb

test-unit: deb lab-packages ## boot Debian 12 and 13 with systemd under QEMU: the unit serves disks, reloads, is killed, upgraded
	@scripts/install-packages mmdebstrap
	packaging/tests/unit .build/deb trixie
	packaging/tests/unit .build/deb bookworm

test-dom0: deb lab-packages ## boot real Xen, its dom0 installed from the package: unchanged xl, an upgrade below a guest
	@scripts/install-packages mmdebstrap
	packaging/tests/dom0 .build/deb

clean: ## remove what was built
	rm -rf .build
