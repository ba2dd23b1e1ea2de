# One way to build: CMake beneath, make in front.
BUILD ?= build
.PHONY: all
all:
	@cmake -S . -B $(BUILD) -G Ninja >/dev/null && ninja -C $(BUILD)
