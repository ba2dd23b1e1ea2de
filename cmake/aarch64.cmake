# Builds for AArch64 on another machine, with Debian's cross compiler and a folder of arm64 packages
# (MMAMBA_SYSROOT); scripts/build-arm.sh makes that folder. Tests run under qemu-user.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)

set(MMAMBA_SYSROOT "${CMAKE_CURRENT_LIST_DIR}/../build-arm/sysroot" CACHE PATH "arm64 packages")
get_filename_component(MMAMBA_SYSROOT "${MMAMBA_SYSROOT}" ABSOLUTE)
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES MMAMBA_SYSROOT)
set(CMAKE_SYSROOT "${MMAMBA_SYSROOT}")
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(ENV{PKG_CONFIG_DIR} "")
set(ENV{PKG_CONFIG_LIBDIR}
  "${MMAMBA_SYSROOT}/usr/lib/aarch64-linux-gnu/pkgconfig:${MMAMBA_SYSROOT}/usr/share/pkgconfig")
set(ENV{PKG_CONFIG_SYSROOT_DIR} "${MMAMBA_SYSROOT}")

# "max" has every level; MMAMBA_QEMU_CPU=cortex-a72 has none above neon.
set(MMAMBA_QEMU_CPU max CACHE STRING "the processor that the tests see")
set(CMAKE_CROSSCOMPILING_EMULATOR
  "qemu-aarch64;-L;${MMAMBA_SYSROOT};-cpu;${MMAMBA_QEMU_CPU}")
