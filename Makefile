# make run    install what is missing, build, fetch Linux's drivers, boot the demo, run the block benchmark; on a terminal end at the prompt
# make test   install what is missing, run all tests (those that need KVM are left out where there is none)
# make test-linux   boot Linux as an independent client of the devices (builds a kernel once: some 10 minutes; TAP needs root)
# make build  the release build alone
# make drivers   fetch Debian's driver modules and build the container that runs them (some 30 seconds)

SWIFT ?= swift
BUILD_FLAGS := -c release --static-swift-stdlib
# Debian packages: libraries of the build, then tools of the tests.
BUILD_PACKAGES := libfdt-dev liburing-dev pkg-config
TEST_PACKAGES := gdb device-tree-compiler qemu-system-x86 cpio e2fsprogs xz-utils
SCRATCH_DISK := .build/demo.img

.PHONY: all build drivers run test test-linux setup setup-test clean

all: build

build: setup
	$(SWIFT) build $(BUILD_FLAGS)

run: build drivers
	@bin=$$($(SWIFT) build $(BUILD_FLAGS) --show-bin-path) && sh Tests/run-demo.sh "$$bin/castor" $(SCRATCH_DISK)

# Where they cannot be fetched, what needs them is left out, and says so.
drivers:
	@sh Guest/Linux/make-drivers.sh || echo "Going on without Linux's drivers."

test: setup setup-test drivers
	$(SWIFT) build --build-tests --explicit-target-dependency-import-check error
	@sh Tests/run-tests.sh $(SWIFT)

test-linux: build
	@bin=$$($(SWIFT) build $(BUILD_FLAGS) --show-bin-path) && Tests/linux/run.sh "$$bin/castor-vmm"

setup:
	@command -v $(SWIFT) >/dev/null || { echo "Swift 6.2 or later is needed: see https://www.swift.org/install" >&2; exit 1; }
	@sh Tests/install-packages.sh $(BUILD_PACKAGES)

setup-test:
	@sh Tests/install-packages.sh $(TEST_PACKAGES)

clean:
	rm -rf .build
