# One way to build: CMake beneath, make in front. `make help` lists what there is.
BUILD ?= build
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 60
CMAKE_FLAGS ?=
NINJA_FLAGS ?=

.PHONY: all setup test asan tsan arm cuda demo demo-clean install format format-check fuzz fuzz-keep check-fresh clean help

all: setup  ## build/mmamba and the libraries
	@cmake -S . -B $(BUILD) -G Ninja -DCMAKE_INSTALL_PREFIX=$(PREFIX) $(CMAKE_FLAGS) >/dev/null
	@ninja -C $(BUILD) $(NINJA_FLAGS)

setup:
	@scripts/setup.sh build

test: all  ## every test; ends with "N passed, N failed"
	@scripts/test.sh $(BUILD)

asan: setup  ## the same tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@cmake -S . -B build-asan -G Ninja -DMMAMBA_ASAN=ON $(CMAKE_FLAGS) >/dev/null
	@ninja -C build-asan $(NINJA_FLAGS)
	@TEST_TIMEOUT=1500 scripts/test.sh build-asan

tsan: setup  ## the tests that start threads under ThreadSanitizer
	@cmake -S . -B build-tsan -G Ninja -DMMAMBA_TSAN=ON $(CMAKE_FLAGS) >/dev/null
	@ninja -C build-tsan $(NINJA_FLAGS)
	@TEST_TIMEOUT=1500 scripts/test.sh build-tsan -L threads

arm:  ## the AArch64 build (cross-compiled) and its tests under qemu-user, in build-arm
	@CMAKE_FLAGS="$(CMAKE_FLAGS)" NINJA_FLAGS="$(NINJA_FLAGS)" scripts/build-arm.sh

cuda: setup  ## also the GPU plug-in (needs nvcc)
	@cmake -S . -B $(BUILD) -G Ninja -DMMAMBA_CUDA=ON -DCMAKE_INSTALL_PREFIX=$(PREFIX) $(CMAKE_FLAGS) >/dev/null
	@ninja -C $(BUILD) $(NINJA_FLAGS)

demo: setup  ## a data set, a teacher, a carving, three stages, a report: within ten minutes
	@cmake -S . -B $(BUILD) -G Ninja -DCMAKE_INSTALL_PREFIX=$(PREFIX) $(CMAKE_FLAGS) >/dev/null
	@ninja -C $(BUILD) $(NINJA_FLAGS) mmamba scenes bars
	@BUILD=$(BUILD) scripts/demo.sh

demo-clean:  ## forgets what `make demo` made (out/demo)
	rm -rf out/demo

install: all  ## program, libraries, header, pkg-config file, under DESTDIR and PREFIX
	@cmake --install $(BUILD) --prefix $(PREFIX)

SOURCES = $(shell git ls-files -co --exclude-standard '*.c' '*.h' '*.cu' '*.cuh')

format:  ## lay out every source file
	@scripts/setup.sh format
	@clang-format -i $(SOURCES)

format-check:  ## says which source files are not laid out; changes nothing
	@scripts/setup.sh format
	@clang-format --dry-run -Werror $(SOURCES)

fuzz:  ## every fuzz target for FUZZ_SECONDS (60) under both sanitizers
	@scripts/setup.sh build fuzz
	@scripts/fuzz.sh run $(FUZZ_SECONDS)

fuzz-keep:  ## puts what `make fuzz` found new into tests/fuzz/corpus
	@scripts/fuzz.sh keep

check-fresh:  ## `make demo` and `make test` on a bare Debian 12 in a scratch folder
	@scripts/setup.sh fresh
	@scripts/check-fresh.sh

clean:  ## removes what was built
	rm -rf build build-asan build-tsan build-fuzz build-arm

help:
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/p' Makefile | expand -t 22
